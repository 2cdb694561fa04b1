import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { listen, stop } from '../gateway/support.ts';

/** One request of a harness to a model, as it went over the wire. */
export interface ModelCall {
  path: string;
  /** The key it was made with, and the session that key is of. */
  key: string;
  sessionId: string | undefined;
  body: string;
}

/** Stands before the gateway and keeps what harnesses ask it; bytes go through unchanged, in both directions. */
export class ModelTap {
  url = '';
  readonly calls: ModelCall[] = [];
  readonly #target: string;
  readonly #sessionOf: (key: string) => Promise<string | undefined>;
  readonly #server = createServer((req, res) => void this.#pass(req, res).catch(() => res.destroy()));

  constructor(target: string, sessionOf: (key: string) => Promise<string | undefined>) {
    this.#target = target;
    this.#sessionOf = sessionOf;
  }

  static async start(target: string, sessionOf: (key: string) => Promise<string | undefined>): Promise<ModelTap> {
    const tap = new ModelTap(target, sessionOf);
    tap.url = await listen(tap.#server);
    return tap;
  }

  /** Requests of a session for an answer, oldest first. */
  of(sessionId: string): ModelCall[] {
    return this.calls.filter((call) => call.sessionId === sessionId && call.body !== '');
  }

  close(): Promise<void> {
    return stop(this.#server);
  }

  async #pass(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { authorization = '', 'x-api-key': apiKey, 'x-goog-api-key': googleKey } = req.headers;
    const key = String(apiKey ?? googleKey ?? authorization.replace('Bearer ', ''));
    const body = await buffer(req);
    const path = req.url ?? '';
    this.calls.push({ path, key, sessionId: await this.#sessionOf(key), body: body.toString('utf8') });
    const target = new URL(path, this.#target);
    const upstream = request(target, { method: req.method ?? 'GET', headers: { ...req.headers, host: target.host } });
    upstream.on('response', (answer) => {
      res.writeHead(answer.statusCode ?? 502, answer.headers);
      res.flushHeaders();
      answer.pipe(res);
      // A connection that was cut there is cut here.
      answer.on('error', () => res.destroy());
    });
    upstream.on('error', () => res.destroy());
    res.on('close', () => upstream.destroy());
    upstream.end(body);
  }
}
