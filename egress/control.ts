import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { z } from 'zod';
import { LonghaulError } from '../contracts/error-codes.ts';
import { newId } from '../contracts/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { OpenVault } from '../vault/broker.ts';
import { LIMITS } from '../contracts/limits.ts';
import type { EgressAccess, McpAnswer, McpMessage } from './client.ts';

/** What the control interface asks of the broker. */
export interface ControlTarget {
  attach(sandboxId: string, sessionId: string | null, point: EgressPoint | null): Promise<EgressAccess>;
  detach(sandboxId: string): Promise<boolean>;
  refresh(sessionId: string): Promise<void>;
  revoke(sessionId: string): Promise<void>;
  redact(sessionId: string, texts: string[]): Promise<{ texts: string[]; redactions: number }>;
  caCertificate(): string;
  metrics(): Promise<{ contentType: string; text: string }>;
}

const id = z.string().min(1).max(128);
/** Where a broker may listen for one sandbox; as `EgressPoint` of the sandbox port. */
export const egressPoint = z.strictObject({
  type: z.literal('namespace'),
  pid: z.int().min(2),
  startTime: z.string().regex(/^\d{1,20}$/),
});
/** `sessionId` null: a sandbox of an E2B program. */
const attachBody = z.strictObject({ sessionId: id.nullable(), point: egressPoint.nullable() });
const redactBody = z.strictObject({ sessionId: id, texts: z.array(z.string()).max(1_000) });

const mcpBody = z.strictObject({
  server: z.string().min(1).max(64),
  method: z.enum(['POST', 'DELETE']),
  headers: z.record(z.string().max(64), z.string().max(1_024)),
  body: z.string().max(LIMITS.mcpMessageBytes).nullable(),
  timeoutMs: z.int().min(1).max(LIMITS.toolTimeoutMaxMs),
});

export type EgressPoint = z.infer<typeof egressPoint>;

const BODY_BYTES = 8 * 1024 * 1024;

interface Answer {
  status: number;
  contentType: string;
  text: string;
}

const json = (value: object): Answer => ({
  status: 200,
  contentType: 'application/json; charset=utf-8',
  text: JSON.stringify(value),
});

/** What needs the vault. */
interface ControlExtras {
  vault?: Pick<OpenVault, 'validate'>;
  sendToMcpServer?: (sessionId: string, message: McpMessage) => Promise<McpAnswer>;
}

/** The broker's control interface, for worker and api. It listens where no sandbox gets to, and asks for the secret. */
export function createControl(target: ControlTarget, token: string, logger: Logger, more: ControlExtras = {}): Server {
  const expected = createHash('sha256').update(token).digest();
  const isTrusted = (req: IncomingMessage): boolean => {
    const given = /^Bearer (.+)$/.exec(req.headers.authorization ?? '')?.[1] ?? '';
    return timingSafeEqual(createHash('sha256').update(given).digest(), expected);
  };
  const answer = async (req: IncomingMessage): Promise<Answer> => {
    const open = await openRoute(req, target);
    if (open !== null) return open;
    if (!isTrusted(req)) throw new LonghaulError('invalid_api_key', 'the control interface needs its own token');
    return trustedRoute(req, target, more);
  };
  return createServer((req, res) => {
    answer(req).then(
      ({ status, contentType, text }) => send(res, status, contentType, text),
      (error: unknown) => {
        const known = error instanceof LonghaulError ? error : new LonghaulError('internal', 'it failed');
        if (known !== error) logger.error({ err: error, path: req.url }, 'a control request failed');
        send(res, known.status, 'application/json', JSON.stringify(known.toBody(newId('request'))));
        req.resume();
      },
    );
  });
}

async function openRoute(req: IncomingMessage, target: ControlTarget): Promise<Answer | null> {
  if (req.method !== 'GET') return null;
  if (req.url === '/healthz') return json({ status: 'ok' });
  if (req.url !== '/ca.pem') return null;
  return { status: 200, contentType: 'application/x-pem-file', text: target.caCertificate() };
}

async function trustedRoute(
  req: IncomingMessage,
  target: ControlTarget,
  { vault, sendToMcpServer }: ControlExtras,
): Promise<Answer> {
  const [, resource = '', name = '', verb = '', ...rest] = (req.url ?? '').split('/').map(decoded);
  const route = rest.length > 0 ? '' : `${req.method ?? ''} ${resource}${verb === '' ? '' : `/${verb}`}`;
  switch (route) {
    case 'GET metrics': {
      const { contentType, text } = await target.metrics();
      return { status: 200, contentType, text };
    }
    case 'PUT sandboxes': {
      const body = await bodyOf(req, attachBody);
      return json({ access: await target.attach(checkedId(name), body.sessionId, body.point) });
    }
    case 'DELETE sandboxes':
      return json({ detached: await target.detach(checkedId(name)) });
    case 'POST sessions/refresh':
    case 'POST sandboxes/refresh':
      await target.refresh(checkedId(name));
      return json({});
    case 'POST sessions/revoke':
      await target.revoke(checkedId(name));
      return json({});
    case 'POST credentials/validate':
      if (vault === undefined) throw new LonghaulError('credential_unavailable', 'this broker has no vault');
      return json(await vault.validate(checkedId(name)));
    case 'POST sessions/mcp':
      if (sendToMcpServer === undefined) throw new LonghaulError('credential_unavailable', 'this broker has no vault');
      return json(await sendToMcpServer(checkedId(name), await bodyOf(req, mcpBody)));
    case 'POST redact': {
      const body = await bodyOf(req, redactBody);
      return json(await target.redact(body.sessionId, body.texts));
    }
    default:
      throw new LonghaulError('route_not_found', `the broker has no route ${req.method ?? ''} ${req.url ?? ''}`);
  }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new LonghaulError('invalid_path', 'the path has a broken percent-escape');
  }
}

function checkedId(name: string): string {
  const { success } = id.safeParse(name);
  if (!success) throw new LonghaulError('invalid_request', 'the id must have 1 to 128 characters', { field: 'id' });
  return name;
}

/** The whole body. What is too much is read and dropped: who still sends would not see the answer. */
function textOf(req: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    req.on('data', (chunk: Buffer) => {
      sizeBytes += chunk.length;
      if (sizeBytes <= BODY_BYTES) chunks.push(chunk);
      else {
        chunks.length = 0;
        reject(new LonghaulError('request_too_large', `at most ${BODY_BYTES} bytes`));
      }
    });
    req.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
    req.on('close', () => reject(new LonghaulError('invalid_request', 'the request broke off')));
  });
}

async function bodyOf<T>(req: IncomingMessage, schema: z.ZodType<T>): Promise<T> {
  const text = await textOf(req);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new LonghaulError('invalid_json', 'the body is not JSON');
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new LonghaulError('invalid_request', issue?.message ?? 'invalid', { field: issue?.path.join('.') ?? 'body' });
}

function send(res: ServerResponse, status: number, contentType: string, text: string): void {
  if (res.headersSent || res.destroyed) return;
  res.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text) }).end(text);
}
