import type { IncomingMessage, ServerResponse } from 'node:http';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { piecesOf, readBody, toWireError, WireError } from '../http.ts';
import { LIMITS } from '../../../contracts/limits.ts';

/** Codes of the Connect protocol, with the HTTP status of a unary answer. */
const STATUS = {
  canceled: 499,
  invalid_argument: 400,
  deadline_exceeded: 504,
  not_found: 404,
  already_exists: 409,
  permission_denied: 403,
  resource_exhausted: 429,
  failed_precondition: 400,
  unimplemented: 501,
  internal: 500,
  unavailable: 503,
  unauthenticated: 401,
} as const;

type RpcCode = keyof typeof STATUS;

export class RpcError extends Error {
  readonly code: RpcCode;

  constructor(code: RpcCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.name = 'RpcError';
    this.code = code;
  }
}

/** Any thrown thing as an error of the protocol. */
export function toRpcError(thrown: unknown): RpcError {
  if (thrown instanceof RpcError) return thrown;
  if (thrown instanceof LonghaulError && thrown.code === 'sandbox_unsupported') {
    return new RpcError('unimplemented', thrown.message, { cause: thrown });
  }
  const { status, message, cause } = toWireError(thrown);
  return new RpcError(codeOf(status), message, { cause: cause ?? thrown });
}

function codeOf(status: number): RpcCode {
  if (status === 400) return 'invalid_argument';
  if (status === 401) return 'unauthenticated';
  if (status === 404) return 'not_found';
  if (status === 413 || status === 429 || status === 507) return 'resource_exhausted';
  return status === 502 || status === 503 ? 'unavailable' : 'internal';
}

export type Message = Record<string, unknown>;

const FRAME_HEAD_BYTES = 5;
const END_STREAM = 2;

/** Reads the one message of a unary call or of a stream that only answers. */
export async function readMessage(req: IncomingMessage, isStream: boolean): Promise<Message> {
  if (!isStream) return parse(await readBody(req, LIMITS.e2bMessageBytes));
  for await (const message of readMessages(req)) return message;
  throw new RpcError('invalid_argument', 'the stream has no message');
}

/** Messages of a stream, each bounded. */
export async function* readMessages(req: IncomingMessage): AsyncIterable<Message> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of piecesOf(req)) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      if (rest.length < FRAME_HEAD_BYTES) break;
      const sizeBytes = rest.readUInt32BE(1);
      if (sizeBytes > LIMITS.e2bMessageBytes) throw new RpcError('resource_exhausted', 'a message is too large');
      if (rest.length < FRAME_HEAD_BYTES + sizeBytes) break;
      const flags = rest[0] ?? 0;
      if ((flags & END_STREAM) !== 0) return;
      if (flags !== 0) throw new RpcError('unimplemented', 'compressed messages are not taken');
      yield parse(rest.subarray(FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + sizeBytes));
      rest = rest.subarray(FRAME_HEAD_BYTES + sizeBytes);
    }
  }
}

function parse(bytes: Buffer): Message {
  try {
    const value: unknown = bytes.length === 0 ? {} : JSON.parse(bytes.toString());
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Message;
  } catch {
    // Told below.
  }
  throw new RpcError('invalid_argument', 'the message is not a JSON object');
}

/** Answers a unary call that failed. */
export function sendRpcError(res: ServerResponse, error: RpcError): void {
  if (res.headersSent || res.destroyed) return;
  const text = JSON.stringify({ code: error.code, message: error.message });
  res.writeHead(STATUS[error.code], { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  res.end(text);
}

/** The answering side of a stream. Errors come in its last frame, as the protocol wants it. */
export class RpcStream {
  private readonly res: ServerResponse;

  constructor(res: ServerResponse) {
    this.res = res;
  }

  /** Waits while the reader takes nothing, so that a slow reader costs no memory. */
  async send(message: object): Promise<void> {
    this.open();
    if (this.res.write(frame(0, message)) || this.res.destroyed) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.res.off('drain', done).off('close', done);
        resolve();
      };
      this.res.on('drain', done).on('close', done);
    });
  }

  end(error?: RpcError): void {
    if (this.res.destroyed || this.res.writableEnded) return;
    this.open();
    this.res.end(frame(END_STREAM, error === undefined ? {} : { error: { code: error.code, message: error.message } }));
  }

  private open(): void {
    if (!this.res.headersSent) this.res.writeHead(200, { 'content-type': 'application/connect+json' });
  }
}

function frame(flags: number, message: object): Buffer {
  const body = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(FRAME_HEAD_BYTES);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** A count of milliseconds in a header; undefined when there is none. */
export function millisOf(header: string | string[] | undefined, unitMs = 1): number | undefined {
  if (typeof header !== 'string') return undefined;
  if (!/^\d{1,10}$/.test(header)) throw new WireError(400, 'a header that holds a time is not a number');
  return Number(header) * unitMs;
}
