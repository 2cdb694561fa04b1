import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { listen, stop } from '../gateway/support.ts';

/** One request of a harness to a model, as it went over the wire. */
export interface ModelCall {
  path: string;
  /** The key it was made with. */
  key: string;
  body: string;
}

/** Stands before the gateway and keeps what harnesses ask it; bytes go through unchanged, in both directions. */
export class ModelTap {
  url = '';
  readonly calls: ModelCall[] = [];
  readonly #target: string;
  readonly #server = createServer((req, res) => this.#pass(req, res));

  constructor(target: string) {
    this.#target = target;
  }

  static async start(target: string): Promise<ModelTap> {
    const tap = new ModelTap(target);
    tap.url = await listen(tap.#server);
    return tap;
  }

  /** Requests for an answer made with that key, oldest first. */
  of(key: string): ModelCall[] {
    return this.calls.filter((call) => call.key === key && call.body !== '');
  }

  close(): Promise<void> {
    return stop(this.#server);
  }

  #pass(req: IncomingMessage, res: ServerResponse): void {
    const { authorization = '', 'x-api-key': apiKey, 'x-goog-api-key': googleKey } = req.headers;
    const call = {
      path: req.url ?? '',
      key: String(apiKey ?? googleKey ?? authorization.replace('Bearer ', '')),
      body: '',
    };
    const chunks: Buffer[] = [];
    const target = new URL(req.url ?? '/', this.#target);
    const upstream = request(target, { method: req.method ?? 'GET', headers: { ...req.headers, host: target.host } });
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => {
      call.body = Buffer.concat(chunks).toString('utf8');
      this.calls.push(call);
    });
    req.pipe(upstream);
    upstream.on('response', (answer) => {
      res.writeHead(answer.statusCode ?? 502, answer.headers);
      res.flushHeaders();
      answer.pipe(res);
      // A connection that was cut there is cut here.
      answer.on('error', () => res.destroy());
    });
    upstream.on('error', () => res.destroy());
    res.on('close', () => upstream.destroy());
  }
}
