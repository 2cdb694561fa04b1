import type { ClientRequest, IncomingMessage } from 'node:http';
import { ServerResponse } from 'node:http';
import type net from 'node:net';
import type { Duplex, Transform } from 'node:stream';
import type { Allowed, HeaderList, RequestHead } from '../decision.ts';
import { formatAuthority } from '../hosts.ts';
import type { Flow, SandboxEgress } from '../sandbox.ts';
import { EgressFailure, rawAnswer, toFailure } from './failure.ts';
import { watchHalfClosed } from './half-closed.ts';
import { endToEnd, flat, pairsOf, without } from './headers.ts';
import { Http1Inbound } from './inbound.ts';
import { finished, pump } from './pump.ts';
import { printable, readRequest, type Tunnel } from './request-head.ts';

/** A WebSocket: asked for like a request, decided about like one, then bytes both ways. */
export class WebSocketExchange implements Flow {
  /** Frames are not read: what a policy changed to say about them would not be seen. */
  readonly isOpaque = true;
  activeAtMs = performance.now();
  readonly #inbound: Http1Inbound;
  readonly #req: IncomingMessage;
  readonly #socket: net.Socket;
  readonly #sandbox: SandboxEgress;
  readonly #quietMs: number;
  readonly #startedMs = performance.now();
  readonly #gone = new AbortController();
  #request: ClientRequest | undefined;
  #upstream: Duplex | undefined;
  #allowed: Allowed | undefined;
  #status: number | null = null;
  #bytesOut = 0;
  #bytesIn = 0;
  #error: string | undefined;
  #unwatch: () => void = () => undefined;

  /** `quietMs`: how long it stays when its sandbox sends no more and nothing comes. */
  constructor(req: IncomingMessage, socket: net.Socket, head: Buffer, sandbox: SandboxEgress, quietMs: number) {
    this.#req = req;
    this.#quietMs = quietMs;
    this.#inbound = new Http1Inbound(req, new ServerResponse(req));
    this.#socket = socket;
    this.#sandbox = sandbox;
    if (head.length > 0) socket.unshift(head);
    socket.on('error', () => undefined);
  }

  cut(code: string): void {
    this.#error ??= code;
    this.#gone.abort();
    this.#socket.destroy();
    this.#request?.destroy();
    this.#upstream?.destroy();
  }

  /** Never throws. */
  async run(tunnel: Tunnel | null): Promise<void> {
    const onClose = (): void => this.cut('sandbox_hung_up');
    this.#socket.once('close', onClose);
    let head: RequestHead | undefined;
    try {
      this.#sandbox.begin(this);
      head = readRequest(this.#inbound, tunnel, true);
      if (!this.#sandbox.countRequest()) {
        throw new EgressFailure(429, 'requests_exhausted', 'this sandbox has made all the requests it may make');
      }
      const decision = await this.#sandbox.engine.request(head, this.#gone.signal);
      if (decision.action === 'deny') {
        this.#socket.end(rawAnswer(decision));
        return;
      }
      this.#allowed = decision;
      await this.#open(decision);
    } catch (error) {
      this.#refuse(toFailure(error), tunnel, head);
    } finally {
      this.#unwatch();
      this.#socket.off('close', onClose);
      this.#sandbox.end(this);
      this.#socket.destroySoon();
      this.#upstream?.destroy();
      this.#record();
    }
  }

  async #open(allowed: Allowed): Promise<void> {
    const { target, method, path, query, headers } = allowed.head;
    const upgrading: HeaderList = [
      ['host', formatAuthority(target, target.isTls ? 443 : 80)],
      ['connection', 'Upgrade'],
      ['upgrade', 'websocket'],
      ...without(headers, 'host', 'content-length'),
    ];
    const whole = query === null ? path : `${path}?${query}`;
    const request = this.#sandbox.upstream.request(target, method, whole, flat(upgrading));
    this.#request = request;
    request.end();
    const answer = await new Promise<{ response: IncomingMessage; socket: net.Socket | null; head: Buffer }>(
      (resolve, reject) => {
        request.once('upgrade', (response, socket: net.Socket, rest: Buffer) => {
          resolve({ response, socket, head: rest });
        });
        request.once('response', (response) => resolve({ response, socket: null, head: Buffer.alloc(0) }));
        request.on('error', (error) => reject(toFailure(error)));
        request.once('close', () => reject(toFailure(new Error('closed'))));
      },
    );
    const { response, socket } = answer;
    this.#status = response.statusCode ?? 502;
    const change = allowed.response?.({ status: this.#status, headers: endToEnd(pairsOf(response.rawHeaders)) });
    const kept = change?.headers ?? endToEnd(pairsOf(response.rawHeaders));
    if (socket === null) {
      await this.#decline(response, kept, change?.body?.() ?? null, allowed);
      return;
    }
    this.#upstream = socket;
    if (answer.head.length > 0) socket.unshift(answer.head);
    this.#socket.write(
      headOf(this.#status, this.#reasonOf(response, allowed), [
        ['connection', 'Upgrade'],
        ['upgrade', 'websocket'],
        ...kept,
      ]),
      'latin1',
    );
    await this.#both(socket, allowed);
  }

  async #both(upstream: net.Socket, allowed: Allowed): Promise<void> {
    const { requestBodyBytes, responseBodyBytes } = allowed.limits;
    await Promise.all([
      pump(this.#socket, upstream, (chunk) => {
        this.#bytesOut += chunk.length;
        this.#check(this.#bytesOut <= requestBodyBytes, chunk);
      }).then(() => {
        this.#unwatch = watchHalfClosed(this, this.#quietMs);
        return finished(upstream);
      }),
      pump(upstream, this.#socket, (chunk) => {
        this.#bytesIn += chunk.length;
        this.#check(this.#bytesIn <= responseBodyBytes, chunk);
      }).then(() => finished(this.#socket)),
    ]);
  }

  #check(isWithin: boolean, chunk: Buffer): void {
    this.activeAtMs = performance.now();
    if (isWithin && this.#sandbox.countBytes(chunk.length)) return;
    throw new EgressFailure(413, 'tunnel_too_large', 'the WebSocket has moved all it may move');
  }

  /** Where answers are looked through, the upstream's free text is left out. */
  #reasonOf(response: IncomingMessage, allowed: Allowed): string {
    return allowed.response === undefined ? (response.statusMessage ?? '') : '';
  }

  /** The upstream would not: its answer is given as it is. */
  async #decline(
    response: IncomingMessage,
    headers: HeaderList,
    transform: Transform | null,
    allowed: Allowed,
  ): Promise<void> {
    const plain = without(headers, 'content-length');
    const reason = this.#reasonOf(response, allowed);
    this.#socket.write(headOf(this.#status ?? 502, reason, [...plain, ['connection', 'close']]), 'latin1');
    const count = (chunk: Buffer): void => {
      this.#bytesIn += chunk.length;
      this.#check(this.#bytesIn <= allowed.limits.responseBodyBytes, chunk);
    };
    if (transform === null) await pump(response, this.#socket, count);
    else {
      const passing = pump(transform, this.#socket, () => undefined);
      passing.catch((error: Error) => transform.destroy(error));
      await pump(response, transform, count);
      await finished(transform);
      await passing;
    }
    await finished(this.#socket);
  }

  #refuse(failure: EgressFailure, tunnel: Tunnel | null, head: RequestHead | undefined): void {
    this.#error ??= failure.code;
    if (this.#status === null && this.#socket.writable) this.#socket.end(rawAnswer(failure));
    if (this.#allowed !== undefined) return;
    const { host, port, isTls } = head?.target ?? tunnel ?? { host: '', port: 0, isTls: false };
    this.#sandbox.engine.refused({
      target: host === '' ? null : { host, port, isTls },
      asked: printable(this.#req.url?.split('?')[0] ?? ''),
      method: this.#inbound.method,
      path: head?.path ?? null,
      status: failure.status,
      code: this.#error,
    });
  }

  #record(): void {
    this.#allowed?.record({
      status: this.#status,
      bytesOut: this.#bytesOut,
      bytesIn: this.#bytesIn,
      durationMs: performance.now() - this.#startedMs,
      ...(this.#error === undefined ? {} : { error: this.#error }),
    });
  }
}

function headOf(status: number, reason: string, headers: readonly (readonly [string, string])[]): string {
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  return `HTTP/1.1 ${status} ${reason.replaceAll(/[^\x20-\x7e]/g, '')}\r\n${lines}\r\n`;
}
