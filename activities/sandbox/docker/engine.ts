import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { Pool } from 'undici';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { readFrames, type Frame } from './frames.ts';
import type { EngineInfo } from './host.ts';

/** How to reach the engine. */
export interface EngineAddress {
  /** `unix:///var/run/docker.sock` or `tcp://host:2376`. */
  host: string;
  /** Folder with ca.pem, cert.pem and key.pem: the engine is spoken to by TLS. */
  certFolder?: string;
}

type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';

interface CallOptions {
  signal: AbortSignal;
  query?: Record<string, string>;
  body?: object | Buffer | AsyncIterable<Uint8Array>;
  /** Other statuses are errors. */
  ok: number[];
}

/** The newest version of the engine's interface this code was written against. */
const NEWEST_API = [1, 47] as const;
const CONNECT_MS = 5_000;
const INFO_MS = 20_000;
const INFO_KEPT_MS = 30_000;
const ANSWER_BYTES = 16 * 1024 * 1024;

/** The Docker Engine API over HTTP. Errors are `LonghaulError` of the sandbox port. */
export class Engine {
  readonly isLocal: boolean;
  private readonly pool: Pool;
  private version: Promise<string> | undefined;
  private known: { info: Promise<EngineInfo>; askedAtMs: number } | undefined;

  constructor(address: EngineAddress) {
    const url = new URL(address.host);
    this.isLocal = url.protocol === 'unix:';
    const timeout = CONNECT_MS;
    const options = { headersTimeout: 0, bodyTimeout: 0 };
    if (this.isLocal) {
      this.pool = new Pool('http://docker', { ...options, connect: { socketPath: url.pathname, timeout } });
    } else if (address.certFolder === undefined) {
      this.pool = new Pool(`http://${url.host}`, { ...options, connect: { timeout } });
    } else {
      const file = (name: string): Buffer => readFileSync(path.join(address.certFolder ?? '', name));
      const tls = { ca: file('ca.pem'), cert: file('cert.pem'), key: file('key.pem') };
      this.pool = new Pool(`https://${url.host}`, { ...options, connect: { ...tls, timeout } });
    }
  }

  /** What the engine tells about itself: asked again now and then, and always after a call that did not reach it. */
  async info(): Promise<EngineInfo> {
    if (this.known === undefined || Date.now() - this.known.askedAtMs >= INFO_KEPT_MS) {
      this.known = { info: this.askInfo(), askedAtMs: Date.now() };
    }
    const asked = this.known;
    try {
      return await asked.info;
    } catch (error) {
      if (this.known === asked) this.known = undefined;
      throw error;
    }
  }

  private async askInfo(): Promise<EngineInfo> {
    const signal = AbortSignal.timeout(INFO_MS);
    const { body } = await this.json<EngineInfo>('GET', '/info', { signal, ok: [200] });
    if (body === null) throw new LonghaulError('sandbox_unavailable', 'the engine tells nothing about itself');
    return body;
  }

  /** An answer of JSON; null when it has none. */
  async json<T>(method: Method, route: string, options: CallOptions): Promise<{ status: number; body: T | null }> {
    const answer = await this.open(method, route, options);
    const text = (await gather(answer.body, options.signal)).toString();
    try {
      return { status: answer.status, body: text === '' ? null : (JSON.parse(text) as T) };
    } catch (cause) {
      throw new LonghaulError('sandbox_unavailable', 'the engine gave no JSON', { cause });
    }
  }

  /** An answer whose body is read in pieces. Leaving it early ends it. */
  async open(
    method: Method,
    route: string,
    options: CallOptions,
  ): Promise<{ status: number; body: Readable; headers: Record<string, string | string[] | undefined> }> {
    const { body, signal } = options;
    const isJson = body !== undefined && !Buffer.isBuffer(body) && !(Symbol.asyncIterator in body);
    const target = await this.target(route, options.query, signal);
    const answer = await this.reach(signal, () =>
      this.pool.request({
        method,
        path: target,
        signal,
        ...(body === undefined ? {} : { body: isJson ? JSON.stringify(body) : (body as Buffer) }),
        headers: { 'content-type': isJson ? 'application/json' : 'application/x-tar' },
      }),
    );
    if (options.ok.includes(answer.statusCode)) {
      return { status: answer.statusCode, body: answer.body, headers: answer.headers };
    }
    throw refusal(answer.statusCode, await gather(answer.body, signal));
  }

  /** Starts a prepared command. With `stdin` the connection becomes its input and output, else its output only. */
  async startExec(execId: string, stdin: AsyncIterable<Uint8Array> | null, signal: AbortSignal): Promise<Attached> {
    const body = { Detach: false, Tty: false };
    const route = `/exec/${execId}/start`;
    if (stdin === null) {
      const answer = await this.open('POST', route, { signal, body, ok: [200] });
      return { frames: readFrames(interrupted(answer.body, signal)), fed: Promise.resolve() };
    }
    const target = await this.target(route, undefined, signal);
    const headers = { 'content-type': 'application/json' };
    const options = { method: 'POST', path: target, protocol: 'tcp', headers, signal, body: JSON.stringify(body) };
    const { socket } = await this.reach(signal, () => this.pool.upgrade(options));
    const abort = (): unknown => socket.destroy();
    signal.addEventListener('abort', abort, { once: true });
    socket.on('error', () => undefined).once('close', () => signal.removeEventListener('abort', abort));
    return { frames: readFrames(interrupted(socket, signal)), fed: feed(socket, stdin) };
  }

  private async target(route: string, query: Record<string, string> | undefined, signal: AbortSignal): Promise<string> {
    const version = (this.version ??= this.negotiate(signal));
    try {
      return `${await version}${route}${query === undefined ? '' : `?${new URLSearchParams(query).toString()}`}`;
    } catch (error) {
      if (this.version === version) this.version = undefined;
      throw error;
    }
  }

  private async reach<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      signal.throwIfAborted();
      // It may come back as another version, or with other limits.
      this.version = undefined;
      this.known = undefined;
      throw unreached(cause);
    }
  }

  /** Engines refuse versions that are newer than theirs, and ones that are too old. */
  private async negotiate(signal: AbortSignal): Promise<string> {
    const answer = await this.reach(signal, () => this.pool.request({ method: 'GET', path: '/_ping', signal }));
    await answer.body.dump();
    const told = String(answer.headers['api-version'] ?? '');
    const [major = 1, minor = 41] = /^\d+\.\d+$/.test(told) ? told.split('.').map(Number) : [];
    return major === NEWEST_API[0] && minor < NEWEST_API[1] ? `/v${major}.${minor}` : `/v${NEWEST_API.join('.')}`;
  }
}

/** What a started command's connection gives. */
export interface Attached {
  frames: AsyncIterable<Frame>;
  /** Settles when the input was given; rejects with what broke its source. */
  fed: Promise<void>;
}

async function feed(socket: NodeJS.WritableStream & Readable, stdin: AsyncIterable<Uint8Array>): Promise<void> {
  const gone = new Promise<void>((resolve) => {
    socket.once('close', resolve);
  });
  try {
    for await (const piece of stdin) {
      if (socket.destroyed) return;
      if (socket.write(piece)) continue;
      await Promise.race([gone, new Promise((resolve) => socket.once('drain', resolve))]);
    }
  } finally {
    // Also when the source broke: the program inside sees the end, and that it came too early.
    socket.end();
  }
}

/** A connection that breaks is the engine's doing, unless the caller left. */
async function* interrupted(source: Readable, signal: AbortSignal): AsyncIterable<Uint8Array> {
  try {
    yield* source as AsyncIterable<Uint8Array>;
  } catch (cause) {
    signal.throwIfAborted();
    throw new LonghaulError('sandbox_unavailable', 'the connection to the engine broke', { cause });
  } finally {
    source.on('error', () => undefined).destroy();
  }
}

async function gather(body: Readable, signal: AbortSignal): Promise<Buffer> {
  const found: Uint8Array[] = [];
  let size = 0;
  for await (const piece of interrupted(body, signal)) {
    size += piece.length;
    if (size > ANSWER_BYTES) throw new LonghaulError('sandbox_unavailable', 'the engine answers too much');
    found.push(piece);
  }
  return Buffer.concat(found);
}

function unreached(cause: unknown): LonghaulError {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'EACCES') {
    return new LonghaulError('sandbox_auth', 'this user may not use the socket of the engine', { cause });
  }
  return new LonghaulError('sandbox_unavailable', `the engine cannot be reached (${code ?? 'no answer'})`, { cause });
}

const NO_SPACE = /no space left|disk quota exceeded/i;
const NO_CONTAINER = /no such (container|exec)/i;
const NO_IMAGE = /no such image|manifest unknown|repository does not exist|invalid reference format/i;
const BAD_IMAGE = /executable file not found|no such file or directory: unknown|exec format error/i;

function refusal(status: number, body: Buffer): LonghaulError {
  return engineError(status, messageOf(body));
}

/** What the engine's status and words mean to the port. */
export function engineError(status: number, message: string): LonghaulError {
  const text = `engine: ${message.slice(0, 300)}`;
  if (NO_SPACE.test(message)) return new LonghaulError('sandbox_quota', text);
  if (NO_IMAGE.test(message)) return new LonghaulError('sandbox_invalid', text, { field: 'image' });
  if (NO_CONTAINER.test(message)) return new LonghaulError('sandbox_not_found', text);
  if (BAD_IMAGE.test(message)) return new LonghaulError('sandbox_invalid', text, { field: 'image' });
  switch (status) {
    case 400:
      return new LonghaulError('sandbox_invalid', text);
    case 401:
    case 403:
      return new LonghaulError('sandbox_auth', text);
    case 404:
      return new LonghaulError('sandbox_not_found', text);
    case 409:
      // A paused one may be woken, one that does not run has lost what ran.
      return new LonghaulError(/not running/i.test(message) ? 'sandbox_lost' : 'sandbox_unavailable', text);
    case 429:
      return new LonghaulError('sandbox_busy', text);
    default:
      return new LonghaulError('sandbox_unavailable', text);
  }
}

function messageOf(body: Buffer): string {
  const text = body.toString();
  try {
    return (JSON.parse(text) as { message?: string }).message ?? text;
  } catch {
    return text;
  }
}
