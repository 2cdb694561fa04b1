import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import type { Readable, Writable } from 'node:stream';
import type { HeaderList } from '../decision.ts';
import { asHttp2, flat, pairsOf, pairsOfHttp2 } from './headers.ts';

/** A request of a sandbox, whichever HTTP it speaks. */
export interface Inbound {
  readonly isHttp2: boolean;
  readonly method: string;
  /** As sent: origin-form, absolute-form or `*`. */
  readonly requestTarget: string;
  /** From Host or `:authority`; null when there is none, or more than one. */
  readonly authority: string | null;
  /** All, names in lower case. */
  readonly headers: [string, string][];
  readonly body: Readable;
  readonly hasBody: boolean;
  /** After the body's end. */
  trailers(): HeaderList;
  sendContinue(): void;
  sendInformation(status: number, headers: HeaderList): void;
  isAnswered(): boolean;
  /** Opens the answer; the body goes into what comes back. */
  answer(status: number, statusMessage: string, headers: HeaderList, isBodiless: boolean): Writable;
  sendTrailers(trailers: HeaderList): void;
  /** Cuts it: an answer that cannot be completed must not look complete. */
  cut(): void;
  /** Called when the sandbox is gone before the answer was complete. */
  onGone(listener: () => void): void;
}

function singleOf(headers: [string, string][], name: string): string | null {
  const values = headers.filter(([each]) => each === name);
  return values.length === 1 ? (values[0]?.[1] ?? null) : null;
}

/** HTTP/1.1. */
export class Http1Inbound implements Inbound {
  readonly isHttp2 = false;
  readonly method: string;
  readonly requestTarget: string;
  readonly headers: [string, string][];
  readonly authority: string | null;
  readonly hasBody: boolean;
  readonly body: IncomingMessage;
  readonly #res: ServerResponse;

  constructor(req: IncomingMessage, res: ServerResponse) {
    this.body = req;
    this.#res = res;
    this.method = req.method ?? '';
    this.requestTarget = req.url ?? '';
    this.headers = pairsOf(req.rawHeaders);
    this.authority = singleOf(this.headers, 'host');
    const { 'transfer-encoding': coding, 'content-length': length } = req.headers;
    this.hasBody = coding !== undefined || Number(length ?? 0) > 0;
  }

  trailers(): HeaderList {
    return pairsOf(this.body.rawTrailers);
  }

  sendContinue(): void {
    if (!this.#res.headersSent) this.#res.writeContinue();
  }

  sendInformation(status: number, headers: HeaderList): void {
    // Node writes no others; 103 is the only one in use.
    if (status !== 103 || this.#res.headersSent) return;
    const links = headers.filter(([name]) => name === 'link').map(([, value]) => value);
    if (links.length === 0) return;
    try {
      this.#res.writeEarlyHints({ link: links });
    } catch {
      // A hint that Node finds malformed: nobody depends on it.
    }
  }

  isAnswered(): boolean {
    return this.#res.headersSent;
  }

  answer(status: number, statusMessage: string, headers: HeaderList, isBodiless: boolean): Writable {
    const res = this.#res;
    const reason = statusMessage.replaceAll(/[^\x20-\x7e]/g, '');
    if (reason === '') res.writeHead(status, flat(headers));
    else res.writeHead(status, reason, flat(headers));
    // Together with the first bytes when they are there already, else by itself: a stream may be silent for long.
    if (!isBodiless) setImmediate(() => res.flushHeaders());
    return res;
  }

  sendTrailers(trailers: HeaderList): void {
    if (trailers.length > 0) this.#res.addTrailers(trailers.map(([name, value]): [string, string] => [name, value]));
  }

  cut(): void {
    this.body.socket.destroy();
  }

  onGone(listener: () => void): void {
    this.#res.once('close', () => {
      if (!this.#res.writableFinished) listener();
    });
  }
}

/** HTTP/2. */
export class Http2Inbound implements Inbound {
  readonly isHttp2 = true;
  readonly method: string;
  readonly requestTarget: string;
  readonly headers: [string, string][];
  readonly authority: string | null;
  readonly hasBody: boolean;
  readonly body: ServerHttp2Stream;
  readonly #trailers: [string, string][] = [];
  #outgoing: HeaderList = [];
  #isGone = false;

  constructor(stream: ServerHttp2Stream, rawHeaders: string[], isEnded: boolean) {
    this.body = stream;
    const pairs = pairsOf(rawHeaders);
    this.method = singleOf(pairs, ':method') ?? '';
    this.requestTarget = singleOf(pairs, ':path') ?? '';
    this.headers = pairsOfHttp2(rawHeaders);
    const named = singleOf(pairs, ':authority');
    const hosts = this.headers.filter(([name]) => name === 'host');
    const isOther = named !== null && hosts.some(([, host]) => host !== named);
    this.authority = isOther ? null : (named ?? singleOf(this.headers, 'host'));
    this.hasBody = !isEnded;
    stream.on('trailers', (_headers, _flags, ...rest: unknown[]) => {
      if (Array.isArray(rest[0])) this.#trailers.push(...pairsOfHttp2(rest[0] as string[]));
    });
    stream.on('error', () => undefined);
  }

  trailers(): HeaderList {
    return this.#trailers;
  }

  sendContinue(): void {
    if (!this.body.headersSent && !this.body.destroyed) this.body.additionalHeaders({ ':status': 100 });
  }

  sendInformation(status: number, headers: HeaderList): void {
    if (!this.body.headersSent && !this.body.destroyed) {
      this.body.additionalHeaders({ ':status': status, ...asHttp2(headers) });
    }
  }

  isAnswered(): boolean {
    return this.body.headersSent;
  }

  answer(status: number, _statusMessage: string, headers: HeaderList, isBodiless: boolean): Writable {
    const stream = this.body;
    if (stream.destroyed) return stream;
    stream.on('wantTrailers', () => stream.sendTrailers(asHttp2(this.#outgoing)));
    stream.respond({ ':status': status, ...asHttp2(headers) }, { waitForTrailers: !isBodiless, endStream: isBodiless });
    return stream;
  }

  sendTrailers(trailers: HeaderList): void {
    this.#outgoing = trailers;
  }

  cut(): void {
    this.body.close(2);
  }

  onGone(listener: () => void): void {
    this.body.once('close', () => {
      // A stream whose session broke off counts as finished too, though nothing was answered on it.
      const isAnswered = this.body.headersSent && this.body.writableFinished && !this.body.aborted;
      if (this.#isGone || isAnswered) return;
      this.#isGone = true;
      listener();
    });
  }
}
