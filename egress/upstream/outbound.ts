import type { ClientRequest, IncomingMessage } from 'node:http';
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import type { Readable, Writable } from 'node:stream';
import type { HeaderList, RequestHead } from '../decision.ts';
import { formatAuthority } from '../hosts.ts';
import { asHttp2, endToEnd, flat, pairsOf, pairsOfHttp2, without } from '../proxy/headers.ts';
import { toFailure } from '../proxy/failure.ts';
import type { UpstreamPool } from './pool.ts';

/** How the body of a request is told upstream: its size, `chunked`, or that there is none. */
export type Framing = { type: 'none' } | { type: 'sized'; bytes: number } | { type: 'open' };

/** An upstream's answer. */
export interface Answer {
  status: number;
  statusMessage: string;
  headers: [string, string][];
  body: Readable;
  /** After the body's end. */
  trailers(): HeaderList;
}

/** A request on its way upstream. */
export interface Outbound {
  readonly body: Writable;
  readonly answer: Promise<Answer>;
  onContinue(listener: () => void): void;
  onInformation(listener: (status: number, headers: HeaderList) => void): void;
  /** Before the end of the body. */
  sendTrailers(trailers: HeaderList): void;
  /** It went out on a kept connection, which the upstream may just have closed. */
  isReused(): boolean;
  cut(): void;
}

/** Sends the head; the body follows. HTTP/2 where the sandbox speaks it and the upstream too. */
export async function openOutbound(
  pool: UpstreamPool,
  head: RequestHead,
  framing: Framing,
  prefersHttp2: boolean,
): Promise<Outbound> {
  let session = prefersHttp2 ? await pool.session(head.target) : null;
  // It may have made room for another connection in the meantime.
  if (session?.destroyed === true) session = await pool.session(head.target);
  if (session === null) return new Http1Outbound(pool, head, framing);
  return new Http2Outbound(pool, session, head, framing);
}

const pathOf = ({ path, query }: RequestHead): string => (query === null ? path : `${path}?${query}`);

class Http1Outbound implements Outbound {
  readonly body: ClientRequest;
  readonly answer: Promise<Answer>;

  constructor(pool: UpstreamPool, head: RequestHead, framing: Framing) {
    const { target } = head;
    const where = target.via ?? target;
    const headers: [string, string][] = [
      ['host', formatAuthority(where, where.isTls ? 443 : 80)],
      ...without(head.headers, 'host', 'content-length', 'transfer-encoding'),
    ];
    if (framing.type === 'sized') headers.push(['content-length', String(framing.bytes)]);
    if (framing.type === 'open') headers.push(['transfer-encoding', 'chunked']);
    if (framing.type === 'none' && !['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'].includes(head.method)) {
      headers.push(['content-length', '0']);
    }
    this.body = pool.request(target, head.method, pathOf(head), flat(headers));
    this.answer = new Promise((resolve, reject) => {
      this.body.once('response', (response: IncomingMessage) => resolve(answerOf(response)));
      this.body.on('error', (error) => reject(toFailure(error)));
      this.body.once('close', () => reject(toFailure(new Error('closed'))));
    });
    // Whoever waits for it sees it; a request that is cut has nobody waiting.
    this.answer.catch(() => undefined);
  }

  onContinue(listener: () => void): void {
    this.body.once('continue', listener);
  }

  onInformation(listener: (status: number, headers: HeaderList) => void): void {
    this.body.on('information', ({ statusCode, rawHeaders }) => {
      if (statusCode !== 100) listener(statusCode, endToEnd(pairsOf(rawHeaders)));
    });
  }

  sendTrailers(trailers: HeaderList): void {
    if (trailers.length > 0) this.body.addTrailers(trailers.map(([name, value]): [string, string] => [name, value]));
  }

  isReused(): boolean {
    return this.body.reusedSocket;
  }

  cut(): void {
    this.body.destroy();
  }
}

function answerOf(response: IncomingMessage): Answer {
  return {
    status: response.statusCode ?? 502,
    statusMessage: response.statusMessage ?? '',
    headers: endToEnd(pairsOf(response.rawHeaders)),
    body: response,
    trailers: () => pairsOf(response.rawTrailers),
  };
}

class Http2Outbound implements Outbound {
  readonly body: ClientHttp2Stream;
  readonly answer: Promise<Answer>;
  #outgoing: HeaderList = [];

  constructor(pool: UpstreamPool, session: ClientHttp2Session, head: RequestHead, framing: Framing) {
    const { target } = head;
    const length = framing.type === 'sized' ? { 'content-length': String(framing.bytes) } : {};
    const isEmpty = framing.type === 'none';
    this.body = pool.stream(
      session,
      {
        ':method': head.method,
        ':scheme': 'https',
        ':authority': formatAuthority(target, 443),
        ':path': pathOf(head),
        ...asHttp2(without(head.headers, 'host', 'content-length')),
        ...length,
      },
      { endStream: isEmpty, waitForTrailers: !isEmpty },
    );
    const stream = this.body;
    stream.on('wantTrailers', () => stream.sendTrailers(asHttp2(this.#outgoing)));
    const trailers: [string, string][] = [];
    stream.on('trailers', (_headers, _flags, ...rest: unknown[]) => {
      if (Array.isArray(rest[0])) trailers.push(...pairsOfHttp2(rest[0] as string[]));
    });
    this.answer = new Promise((resolve, reject) => {
      stream.once('response', (headers, _flags, ...rest: unknown[]) => {
        resolve({
          status: headers[':status'] ?? 502,
          statusMessage: '',
          headers: endToEnd(pairsOfHttp2(rest[0] as string[])),
          body: stream,
          trailers: () => trailers,
        });
      });
      stream.on('error', (error) => reject(toFailure(error)));
      stream.once('close', () => reject(toFailure(new Error('closed'))));
    });
    this.answer.catch(() => undefined);
  }

  onContinue(listener: () => void): void {
    this.body.once('continue', listener);
  }

  onInformation(listener: (status: number, headers: HeaderList) => void): void {
    this.body.on('headers', (headers, _flags, ...rest: unknown[]) => {
      const status = headers[':status'] ?? 0;
      if (status > 100 && status < 200) listener(status, endToEnd(pairsOfHttp2(rest[0] as string[])));
    });
  }

  sendTrailers(trailers: HeaderList): void {
    this.#outgoing = trailers;
  }

  isReused(): boolean {
    return false;
  }

  cut(): void {
    this.body.close(http2.constants.NGHTTP2_CANCEL);
  }
}
