import type { IncomingMessage, ServerResponse } from 'node:http';
import { LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';
import { errorBody, errorHeaders, originalHeaders, type Protocol, type ProtocolError } from './protocol.ts';

/** The whole body; refuses one that is larger than a model request may be. */
export function readBody(req: IncomingMessage): Promise<Buffer> {
  const limit = LIMITS.gatewayBodyBytes;
  // Errors are made when they happen: a stack trace for each good request would be most of its cost here.
  const tooLarge = (): Error => new LonghaulError('request_too_large', `a request may have at most ${limit} bytes`);
  if (Number(req.headers['content-length'] ?? 0) > limit) {
    req.resume();
    return Promise.reject(tooLarge());
  }
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    req.on('data', (chunk: Buffer) => {
      sizeBytes += chunk.length;
      if (sizeBytes > limit) {
        // The rest is read and dropped: a caller that still sends would not see the answer of a closed connection.
        chunks.length = 0;
        reject(tooLarge());
      } else chunks.push(chunk);
    });
    req.on('end', () => resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)));
    req.on('error', reject);
    req.on('close', () => {
      if (!req.readableEnded) reject(new Error('the caller went away'));
    });
  });
}

/** Parses a body that must be a JSON object. */
export function parseJsonObject(body: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new LonghaulError('invalid_json', `the body is not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new LonghaulError('invalid_json', 'the body must be a JSON object');
  }
  return value as Record<string, unknown>;
}

/** Answers with JSON. */
export function sendJson(res: ServerResponse, status: number, headers: Record<string, string>, body: object): void {
  if (res.headersSent || res.destroyed) return;
  const text = JSON.stringify(body);
  res.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    ...headers,
    'content-length': Buffer.byteLength(text),
  });
  res.end(text);
}

/** Answers with the provider's own error where there is one, else with ours in the protocol's shape. */
export function sendError(res: ServerResponse, protocol: Protocol, failure: ProtocolError, requestId: string): void {
  const { error, original } = failure;
  if (original === undefined) {
    sendJson(res, error.status, errorHeaders(error, requestId), errorBody(protocol, failure, requestId));
    return;
  }
  if (res.headersSent || res.destroyed) return;
  res.writeHead(original.status, originalHeaders(error, original, requestId));
  res.end(original.body);
}
