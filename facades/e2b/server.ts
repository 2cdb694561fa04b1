import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { handleControl } from './control/routes.ts';
import { Daemon } from './envd/daemon.ts';
import { RpcError, toRpcError } from './envd/connect.ts';
import { sendError, sendJson, toWireError, WireError } from './http.ts';
import { addressed, ENVD_PORT, proxyPort } from './ports.ts';
import type { E2bDeps } from './sandboxes.ts';

/**
 * The E2B-compatible server: control plane and daemon behind one address, so that a program needs no domain with a
 * wildcard. Headers or the host name tell which sandbox is meant.
 */
export function createE2bServer(deps: E2bDeps): Server {
  const daemon = new Daemon(deps);
  const server = createServer((req, res) => {
    answer(deps, daemon, req, res).catch((thrown: unknown) => fail(deps, req, res, thrown));
  });
  // Commands may be silent for long; their streams show signs of life by themselves.
  server.requestTimeout = 0;
  server.headersTimeout = 30_000;
  // Longer than clients keep an idle connection: one that is closed just as it is used again looks like an outage.
  server.keepAliveTimeout = 120_000;
  return server;
}

async function answer(deps: E2bDeps, daemon: Daemon, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const url = urlOf(req);
  const to = addressed(req);
  if (to !== undefined && to.port !== ENVD_PORT) return proxyPort(deps, req, res, to);
  if (daemon.takes(url, to?.sandboxId)) return daemon.handle(req, res, url, to?.sandboxId);
  if (req.method === 'GET' && (url.pathname === '/healthz' || url.pathname === '/health')) {
    return sendJson(res, 200, { status: 'ok' });
  }
  if (req.method === 'GET' && url.pathname === '/readyz') {
    await deps.pool.query('SELECT 1');
    return sendJson(res, 200, { status: 'ok' });
  }
  await handleControl(deps, req, res, url);
}

function urlOf(req: IncomingMessage): URL {
  try {
    return new URL(req.url ?? '/', 'http://e2b');
  } catch (error) {
    throw new WireError(400, 'the URL is not valid', { cause: error });
  }
}

function fail(deps: E2bDeps, req: IncomingMessage, res: ServerResponse, thrown: unknown): void {
  // Nobody is there to be told, and it is no fault of ours.
  if (res.destroyed) return;
  const error = thrown instanceof RpcError ? fromRpc(thrown) : toWireError(thrown);
  if (error.status === 500 || error.status === 503) {
    deps.logger.error({ method: req.method, status: error.status, err: error.cause ?? error }, 'request failed');
  }
  if (res.headersSent) res.destroy();
  else sendError(res, error);
  // What the caller still sends has nobody to read it.
  if (!req.readableEnded) req.resume();
}

/** Paths and users are checked by the same code for files as for calls. */
function fromRpc(error: RpcError): WireError {
  const { code, message } = toRpcError(error);
  const status = code === 'unauthenticated' ? 401 : code === 'invalid_argument' ? 400 : 500;
  return new WireError(status, message, { cause: error });
}
