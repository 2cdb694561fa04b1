import { createServer, request as httpRequest, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import { listen, stop } from './support.ts';

/** What the double answers next. */
export interface Scene {
  status?: number;
  headers?: Record<string, string>;
  /** Whole body, or the pieces it is written in, each as a packet of its own. */
  body: string | Buffer | readonly (string | Buffer)[];
  /** The connection is cut behind the body. */
  isCut?: boolean;
  /** Nothing comes behind the body, not even its end. */
  hangs?: boolean;
  /** More of the body, later. */
  rest?: { when: Promise<void>; body: string };
}

interface Sent {
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
}

/** A vendor's API as far as it can be seen from outside: it wants key, version and JSON, and tells what it got. */
export interface ProviderDouble {
  url: string;
  requests: Sent[];
  /** By the request, so that what is asked decides what is answered. */
  scene: (request: Sent) => Scene;
  /** Answers that broke off because the other side went away. */
  left: number;
  close(): Promise<void>;
}

export const DOUBLE_KEY = 'sk-provider-key';

const JSON_TYPE = 'application/json';
export const SSE_TYPE = 'text/event-stream; charset=utf-8';

export async function startDouble(): Promise<ProviderDouble> {
  const server = createServer((req, res) => {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => {
      const sent = { path: req.url ?? '', headers: req.headers, body: Buffer.concat(chunks).toString('utf8') };
      double.requests.push(sent);
      res.on('close', () => {
        if (!res.writableFinished) double.left += 1;
      });
      void perform(res, refusal(sent) ?? double.scene(sent), req.headers['accept-encoding'] ?? '');
    });
  });
  const double: ProviderDouble = {
    url: await listen(server),
    requests: [],
    scene: () => ({ body: '{}' }),
    left: 0,
    close: () => stop(server),
  };
  return double;
}

/** What the vendor itself would refuse. */
function refusal({ path, headers, body }: Sent): Scene | undefined {
  const isMessages = path.startsWith('/v1/messages');
  const bearer = headers.authorization?.replace('Bearer ', '');
  const given = isMessages ? (headers['x-api-key'] ?? bearer) : bearer;
  const refuse = (status: number, type: string, message: string): Scene => ({
    status,
    body: JSON.stringify(isMessages ? { type: 'error', error: { type, message } } : { error: { type, message } }),
  });
  if (given !== DOUBLE_KEY) return refuse(401, 'authentication_error', 'invalid key');
  if (isMessages && headers['anthropic-version'] === undefined) {
    return refuse(400, 'invalid_request_error', 'anthropic-version: header is required');
  }
  try {
    JSON.parse(body);
  } catch {
    return refuse(400, 'invalid_request_error', 'the body is not JSON');
  }
  return undefined;
}

async function perform(res: ServerResponse, scene: Scene, acceptEncoding: string): Promise<void> {
  const pieces = typeof scene.body === 'string' || Buffer.isBuffer(scene.body) ? [scene.body] : scene.body;
  const isWhole = pieces.length === 1 && scene.isCut !== true && scene.hangs !== true && scene.rest === undefined;
  const isStream = scene.headers?.['content-type'] === SSE_TYPE;
  const whole = Buffer.concat(pieces.map((piece) => Buffer.from(piece)));
  const isZipped = isWhole && !isStream && acceptEncoding.includes('gzip');
  res.writeHead(scene.status ?? 200, {
    'content-type': JSON_TYPE,
    'request-id': 'req_double',
    'x-request-id': 'req_double',
    'openai-processing-ms': '12',
    'openai-version': '2020-10-01',
    'anthropic-ratelimit-requests-remaining': '99',
    'x-ratelimit-remaining-tokens': '1000',
    'anthropic-organization-id': 'org-secret',
    'openai-organization': 'org-secret',
    'set-cookie': '__cf=secret',
    'cf-ray': 'x',
    server: 'double',
    ...scene.headers,
    ...(isZipped && { 'content-encoding': 'gzip' }),
    ...(isWhole && !isStream && { 'content-length': (isZipped ? gzipSync(whole) : whole).length }),
  });
  if (isWhole) {
    res.end(isZipped ? gzipSync(whole) : whole);
    return;
  }
  for (const piece of pieces) {
    await new Promise((resolve) => res.write(piece, resolve));
    // A packet of its own: the next one is written when this one is out.
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (scene.rest !== undefined) {
    await scene.rest.when;
    res.write(scene.rest.body);
  }
  if (scene.isCut === true) res.destroy();
  else if (scene.hangs !== true) res.end();
}

export interface RawAnswer {
  status: number;
  /** Names in lower case, with all values. */
  headers: Record<string, string[]>;
  body: Buffer;
}

/** A request as bytes, and its answer as bytes. */
export function rawPost(url: string, headers: Record<string, string>, body: string): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const req = httpRequest(url, { method: 'POST', headers: { 'content-type': JSON_TYPE, ...headers } }, (res) => {
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk));
      res.on('error', reject);
      res.on('end', () => {
        const seen: Record<string, string[]> = {};
        for (let at = 0; at < res.rawHeaders.length; at += 2) {
          const name = (res.rawHeaders[at] ?? '').toLowerCase();
          seen[name] = [...(seen[name] ?? []), res.rawHeaders[at + 1] ?? ''];
        }
        resolve({ status: res.statusCode ?? 0, headers: seen, body: Buffer.concat(chunks) });
      });
    });
    req.on('error', reject);
    req.end(body);
  });
}
