import type { IncomingMessage, ServerResponse } from 'node:http';
import type { z } from 'zod';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { isOutage } from '../../db/pool.ts';
import { LIMITS } from '../../contracts/limits.ts';

/** An answer of the wire with its HTTP status: what SDKs of E2B read is `{code, message}`. */
export class WireError extends Error {
  readonly status: number;
  readonly retryAfterMs: number | undefined;

  constructor(status: number, message: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'WireError';
    this.status = status;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Words by which SDKs tell "it is gone" from "it cannot be reached". */
export const SANDBOX_GONE = 'The sandbox was not found';

/** Any thrown thing as an answer. What is not ours to tell stays in the cause, for the log. */
export function toWireError(thrown: unknown): WireError {
  if (thrown instanceof WireError) return thrown;
  if (isOutage(thrown)) return new WireError(503, 'the database cannot be reached', { cause: thrown });
  if (!(thrown instanceof LonghaulError)) return new WireError(500, 'something went wrong here', { cause: thrown });
  const { field, message, retryAfterMs } = thrown;
  const text = field === undefined ? message : `${field}: ${message}`;
  const options = retryAfterMs === undefined ? { cause: thrown } : { cause: thrown, retryAfterMs };
  switch (thrown.code) {
    case 'sandbox_not_found':
    case 'sandbox_lost':
      return new WireError(502, SANDBOX_GONE, options);
    case 'sandbox_quota':
      return new WireError(507, text, options);
    default:
      return new WireError(thrown.status, text, options);
  }
}

/** Answers with JSON. */
export function sendJson(
  res: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  if (res.headersSent || res.destroyed) return;
  const text = JSON.stringify(body);
  res.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    ...headers,
  });
  res.end(text);
}

export function sendError(res: ServerResponse, error: WireError): void {
  const headers: Record<string, string> = {};
  if (error.retryAfterMs !== undefined) headers['retry-after'] = String(Math.ceil(error.retryAfterMs / 1_000));
  sendJson(res, error.status, { code: error.status, message: error.message }, headers);
}

/** A request's pieces. Who stops early leaves the connection as it is, so that the caller can be told why. */
export function piecesOf(req: IncomingMessage): AsyncIterable<Buffer> {
  return req.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
}

/** The whole body, bounded. */
export async function readBody(req: IncomingMessage, limitBytes: number = LIMITS.e2bRequestBodyBytes): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of piecesOf(req)) {
    sizeBytes += chunk.length;
    if (sizeBytes > limitBytes) throw new WireError(413, `a request may have at most ${limitBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** A JSON body of this shape; an empty one counts as `{}`. */
export async function readJson<T extends z.ZodType>(req: IncomingMessage, shape: T): Promise<z.infer<T>> {
  const body = await readBody(req);
  let value: unknown = {};
  try {
    if (body.length > 0) value = JSON.parse(body.toString());
  } catch {
    throw new WireError(400, 'the body is not JSON');
  }
  return parseWith(shape, value);
}

export function parseWith<T extends z.ZodType>(shape: T, value: unknown): z.infer<T> {
  const parsed = shape.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new WireError(400, `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'is not valid'}`);
}
