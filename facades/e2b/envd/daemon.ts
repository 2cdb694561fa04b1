import type { IncomingMessage, ServerResponse } from 'node:http';
import { listE2bRunningIds } from '../../../db/queries/e2b-sandboxes.ts';
import { sendJson, WireError } from '../http.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import { liveSandbox, type E2bDeps, type LiveSandbox } from '../sandboxes.ts';
import { isSame } from '../tokens.ts';
import { millisOf, readMessage, readMessages, RpcError, RpcStream, sendRpcError, toRpcError } from './connect.ts';
import { download, upload } from './files.ts';
import { FilesystemService } from './filesystem.ts';
import { measure } from './metrics.ts';
import { userOf } from './paths.ts';
import { ProcessService } from './process.ts';
import { runInside } from './run.ts';
import type { RpcContext, StreamHandler, UnaryHandler } from './services.ts';

const RPC_PATH = /^\/(process\.Process|filesystem\.Filesystem)\/([A-Za-z]{1,32})$/;
const REST_PATHS = new Set(['/files', '/health', '/metrics', '/envs', '/init']);
/** Signed URLs are tried against so many sandboxes. */
const SIGNED_AMONG = 10_000;

interface Service {
  unary: Record<string, UnaryHandler>;
  streams: Record<string, StreamHandler>;
}

/** The part of E2B that runs inside its sandboxes (envd); here it is this server's, for all of them. */
export class Daemon {
  private readonly deps: E2bDeps;
  private readonly processes: ProcessService;
  private readonly services: Record<string, Service>;
  private readonly streams = new Map<string, number>();

  constructor(deps: E2bDeps) {
    this.deps = deps;
    this.processes = new ProcessService(deps);
    this.services = {
      'process.Process': this.processes,
      'filesystem.Filesystem': new FilesystemService(deps),
    };
  }

  /** True when this path is the daemon's. `/health` and `/metrics` need a sandbox's name to be. */
  takes(url: URL, sandboxId: string | undefined): boolean {
    if (RPC_PATH.test(url.pathname) || url.pathname === '/files') return true;
    return sandboxId !== undefined && REST_PATHS.has(url.pathname);
  }

  async handle(req: IncomingMessage, res: ServerResponse, url: URL, named: string | undefined): Promise<void> {
    const sandboxId = named ?? (await this.sandboxOfSignature(req, url));
    if (sandboxId === undefined) throw new WireError(400, 'E2b-Sandbox-Id: is needed');
    const live = await liveSandbox(this.deps, sandboxId);
    if (url.pathname === '/health') return void res.writeHead(204).end();
    this.requireToken(req, url, sandboxId);
    const rpc = RPC_PATH.exec(url.pathname);
    if (rpc === null) return this.rest(req, res, url, live);
    const [, service = '', procedure = ''] = rpc;
    await this.call(req, res, live, service, procedure);
  }

  private async rest(req: IncomingMessage, res: ServerResponse, url: URL, live: LiveSandbox): Promise<void> {
    const asked = `${req.method ?? ''} ${url.pathname}`;
    switch (asked) {
      case 'GET /files':
        return download(this.deps, live, res, url);
      case 'POST /files':
        return upload(this.deps, live, req, res, url);
      case 'GET /metrics':
        return sendJson(res, 200, await measure(this.deps, live));
      case 'GET /envs':
        return sendJson(res, 200, await this.environment(live));
      case 'POST /init':
        // E2B's own control plane calls it; what it would set is set at creation here.
        return void res.writeHead(204).end();
      default:
        throw new WireError(405, `${asked} is not possible`);
    }
  }

  private async environment(live: LiveSandbox): Promise<Record<string, string>> {
    const { stdout } = await runInside(this.deps, live, ['env', '-0']);
    const pairs = stdout
      .toString()
      .split('\0')
      .filter((pair) => pair.includes('='));
    return Object.fromEntries(
      pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
    );
  }

  private requireToken(req: IncomingMessage, url: URL, sandboxId: string): void {
    const given = req.headers['x-access-token'];
    if (typeof given === 'string' && isSame(given, this.deps.tokens.access(sandboxId))) return;
    const signed = signedUrl(req, url);
    if (signed !== undefined && this.deps.tokens.isSigned(sandboxId, signed)) return;
    throw new WireError(401, 'the access token of the sandbox is missing or wrong');
  }

  /** URLs that were signed for a browser carry no header that names the sandbox. */
  private async sandboxOfSignature(req: IncomingMessage, url: URL): Promise<string | undefined> {
    const signed = signedUrl(req, url);
    if (signed === undefined) return undefined;
    const ids = await listE2bRunningIds(this.deps.pool, SIGNED_AMONG);
    const found = ids.find((id) => this.deps.tokens.isSigned(id, signed));
    if (found === undefined) throw new WireError(401, 'the signature is not valid or is over');
    return found;
  }

  private async call(
    req: IncomingMessage,
    res: ServerResponse,
    live: LiveSandbox,
    service: string,
    procedure: string,
  ): Promise<void> {
    const isStream = /^application\/connect\+json\b/.test(req.headers['content-type'] ?? '');
    const stream = new RpcStream(res);
    try {
      const closed = new AbortController();
      res.once('close', () => closed.abort());
      const context: RpcContext = {
        live,
        user: userOf(req.headers.authorization),
        signal: closed.signal,
        keepaliveMs: millisOf(req.headers['keepalive-ping-interval'], 1_000) ?? LIMITS.e2bKeepaliveMs,
        timeoutMs: millisOf(req.headers['connect-timeout-ms']),
      };
      const handlers = this.services[service];
      if (isStream) {
        await this.counted(live.row.id, () => this.answerStream(context, req, stream, handlers, procedure));
        stream.end();
        return;
      }
      const unary = handlers?.unary[procedure];
      if (unary === undefined) throw new RpcError('unimplemented', `${service}/${procedure} is not there`);
      requireJson(req);
      sendJson(res, 200, await unary(context, await readMessage(req, false)));
    } catch (thrown) {
      const error = toRpcError(thrown);
      if (error.code === 'internal') this.deps.logger.error({ err: error.cause ?? error, procedure }, 'a call failed');
      if (isStream) stream.end(error);
      else sendRpcError(res, error);
    }
  }

  private async answerStream(
    context: RpcContext,
    req: IncomingMessage,
    stream: RpcStream,
    handlers: Service | undefined,
    procedure: string,
  ): Promise<void> {
    if (handlers === this.processes && procedure === 'StreamInput') {
      await stream.send(await this.processes.takeInput(context, readMessages(req)));
      return;
    }
    const handler = handlers?.streams[procedure];
    if (handler === undefined) throw new RpcError('unimplemented', `${procedure} is no stream`);
    try {
      await handler(context, await readMessage(req, true), stream);
    } catch (error) {
      // Nobody is there to be told.
      if (!context.signal.aborted) throw error;
    }
  }

  private async counted(sandboxId: string, work: () => Promise<void>): Promise<void> {
    const open = this.streams.get(sandboxId) ?? 0;
    if (open >= LIMITS.e2bStreamsPerSandbox)
      throw new RpcError('resource_exhausted', `${open} streams are open already`);
    this.streams.set(sandboxId, open + 1);
    try {
      await work();
    } finally {
      const left = (this.streams.get(sandboxId) ?? 1) - 1;
      if (left === 0) this.streams.delete(sandboxId);
      else this.streams.set(sandboxId, left);
    }
  }
}

function requireJson(req: IncomingMessage): void {
  const type = req.headers['content-type'] ?? '';
  if (!/^application\/json\b/.test(type)) {
    throw new RpcError('unimplemented', `content type ${type.slice(0, 64)} is not taken: use application/json`);
  }
}

function signedUrl(req: IncomingMessage, url: URL): Parameters<E2bDeps['tokens']['isSigned']>[1] | undefined {
  const signature = url.searchParams.get('signature');
  if (signature === null || url.pathname !== '/files') return undefined;
  return {
    path: url.searchParams.get('path') ?? '',
    operation: req.method === 'GET' ? 'read' : 'write',
    user: url.searchParams.get('username') ?? '',
    signature,
    expiration: url.searchParams.get('signature_expiration'),
  };
}
