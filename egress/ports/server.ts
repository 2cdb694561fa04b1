import { Agent, createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { PORT_TOKEN_HEADER, PORT_TOKEN_PARAMETER, portIdOf, portOrigin } from '../../contracts/port-links.ts';
import type { Queryable } from '../../db/pool.ts';
import type { OpenPort } from '../../db/queries/session-ports.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { connectInside, type NamespacePoint } from '../namespace/porter.ts';
import { PortDirectory } from './directory.ts';
import {
  cookieOf,
  type HeaderPairs,
  isForeign,
  pairsOf,
  PORT_COOKIE,
  requestHeaders,
  responseHeaders,
} from './headers.ts';

/** How soon a connection through a closed port ends. */
const WATCH_MS = 2_000;
const TOKEN = /^[A-Za-z0-9_-]{32}$/;

interface PortsOptions {
  db: Queryable;
  /** What links begin with. */
  url: string;
  logger: Logger;
}

interface Admitted {
  id: string;
  origin: string;
  open: OpenPort;
  point: NamespacePoint;
}

/** Serves open ports of sandboxes, each under an origin of its own, to whoever has the token. */
export class PortsServer {
  readonly #options: PortsOptions;
  readonly #directory: PortDirectory;
  readonly #server: Server;
  /** Connections into sandboxes, kept for the next request. */
  readonly #agents = new Map<string, Agent>();
  readonly #live = new Map<string, Set<Duplex>>();
  readonly #watch: NodeJS.Timeout;

  constructor(options: PortsOptions) {
    this.#options = options;
    this.#directory = new PortDirectory(options.db);
    this.#server = createServer({ headersTimeout: 15_000, requestTimeout: 0, keepAliveTimeout: 15_000 });
    this.#server.on('request', (req: IncomingMessage, res: ServerResponse) => void this.#answer(req, res));
    this.#server.on('upgrade', (req: IncomingMessage, socket: Duplex, head: Buffer) => {
      void this.#upgrade(req, socket, head);
    });
    this.#watch = setInterval(() => void this.#endClosed(), WATCH_MS).unref();
  }

  async listen(port: number, host: string): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, resolve);
    });
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : port;
  }

  async close(): Promise<void> {
    clearInterval(this.#watch);
    for (const agent of this.#agents.values()) agent.destroy();
    for (const sockets of this.#live.values()) for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    try {
      const admitted = await this.#admit(req);
      if (!this.#welcome(req, res, admitted)) await this.#forward(req, res, admitted);
    } catch (error) {
      const known = this.#told(error, req);
      if (res.headersSent) return void res.destroy();
      const text = JSON.stringify(known.toBody(newId('request')));
      const headers = { 'content-type': 'application/json', 'cache-control': 'no-store', connection: 'close' };
      res.writeHead(known.status, { ...headers, 'content-length': Buffer.byteLength(text) }).end(text);
      req.resume();
    }
  }

  #told(error: unknown, req: IncomingMessage): LonghaulError {
    if (error instanceof LonghaulError) return error;
    // The path may hold a token.
    this.#options.logger.error({ err: error, host: req.headers.host }, 'a request to a port failed');
    return new LonghaulError('internal', 'it failed');
  }

  /** Who may go on: the host name is one of ours, the token opens it, its time is not over, and the sandbox runs. */
  async #admit(req: IncomingMessage): Promise<Admitted> {
    const { host = '', cookie } = req.headers;
    const id = portIdOf(this.#options.url, host);
    if (id === null) throw new LonghaulError('not_found', 'this host name serves nothing');
    const header = req.headers[PORT_TOKEN_HEADER];
    const token = tokenOfPath(req.url) ?? (typeof header === 'string' ? header : cookieOf(cookie, PORT_COOKIE)) ?? '';
    const open = TOKEN.test(token) ? await this.#directory.open(id, token) : undefined;
    if (open === undefined)
      throw new LonghaulError('invalid_api_key', 'this port opens with the token of its link only');
    if (open.isOver || open.expiresAt.getTime() <= Date.now()) {
      throw new LonghaulError('port_closed', 'this port is closed');
    }
    const isByCookie = tokenOfPath(req.url) === undefined && typeof header !== 'string';
    if (isByCookie && isForeign(req.headers, req.method ?? 'GET', portOrigin(this.#options.url, id))) {
      throw new LonghaulError('forbidden', 'only pages of this origin may ask here with its cookie');
    }
    if (open.point === null) throw new LonghaulError('sandbox_unavailable', 'the sandbox does not run at the moment');
    return { id, origin: portOrigin(this.#options.url, id), open, point: open.point };
  }

  /** The first visit of a browser: the token moves from the link into a cookie. */
  #welcome(req: IncomingMessage, res: ServerResponse, { origin, open }: Admitted): boolean {
    const token = tokenOfPath(req.url);
    if (token === undefined || (req.method !== 'GET' && req.method !== 'HEAD')) return false;
    const seconds = Math.floor((open.expiresAt.getTime() - Date.now()) / 1_000);
    const secure = origin.startsWith('https:') ? '; Secure' : '';
    res.writeHead(302, {
      location: withoutToken(req.url),
      'set-cookie': `${PORT_COOKIE}=${token}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Lax${secure}`,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
    });
    res.end();
    return true;
  }

  async #forward(req: IncomingMessage, res: ServerResponse, admitted: Admitted): Promise<void> {
    const { id, origin, open } = admitted;
    const to = { port: open.port, origin, isUpgrade: false };
    const inner = request({
      agent: this.#agentOf(admitted),
      method: req.method,
      path: withoutToken(req.url),
      headers: requestHeaders(pairsOf(req.rawHeaders), to).flat(),
      timeout: LIMITS.portIdleMs,
    });
    this.#hold(id, res.socket);
    inner.on('timeout', () => inner.destroy(new LonghaulError('sandbox_unavailable', 'the program says nothing')));
    res.on('close', () => inner.destroy());
    req.pipe(inner);
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      inner.once('response', resolve);
      inner.once('error', (error) => reject(unreachable(open.port, error)));
    });
    inner.on('error', () => res.destroy());
    res.writeHead(answer.statusCode ?? 502, responseHeaders(pairsOf(answer.rawHeaders), to).flat());
    res.flushHeaders();
    answer.on('error', () => res.destroy());
    answer.on('aborted', () => res.destroy());
    answer.pipe(res);
  }

  async #upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', () => undefined);
    try {
      const { id, origin, open, point } = await this.#admit(req);
      if (!/^websocket$/i.test(req.headers.upgrade ?? '')) {
        throw new LonghaulError('invalid_request', 'only WebSocket is passed on', { field: 'upgrade' });
      }
      const inner = await connectInside(point, open.port);
      this.#hold(id, inner);
      inner.on('error', () => socket.destroy());
      const to = { port: open.port, origin, isUpgrade: true };
      inner.write(headOf(`GET ${withoutToken(req.url)} HTTP/1.1`, requestHeaders(pairsOf(req.rawHeaders), to)));
      inner.write(head);
      inner.pipe(socket);
      socket.pipe(inner);
      socket.on('close', () => inner.destroy());
      inner.on('close', () => socket.destroy());
    } catch (error) {
      const known = this.#told(error, req);
      const text = JSON.stringify(known.toBody(newId('request')));
      const headers: HeaderPairs = [
        ['Content-Type', 'application/json'],
        ['Content-Length', String(Buffer.byteLength(text))],
        ['Connection', 'close'],
      ];
      socket.end(`${headOf(`HTTP/1.1 ${known.status} Refused`, headers)}${text}`);
    }
  }

  #agentOf({ open, point }: Admitted): Agent {
    const key = `${point.pid} ${point.startTime} ${open.port}`;
    const known = this.#agents.get(key);
    if (known !== undefined) return known;
    const agent = new Agent({ keepAlive: true, maxSockets: LIMITS.portConnections, timeout: LIMITS.portIdleMs });
    agent.createConnection = (_options, done) => {
      if (done !== undefined) void connectFor(done, point, open.port);
      return undefined;
    };
    // Sandboxes come and go; a page that is open makes its agent anew.
    if (this.#agents.size >= 1_000) {
      for (const each of this.#agents.values()) each.destroy();
      this.#agents.clear();
    }
    this.#agents.set(key, agent);
    return agent;
  }

  #hold(id: string, socket: Duplex | null): void {
    if (socket === null) return;
    const sockets = this.#live.get(id) ?? new Set();
    if (sockets.has(socket)) return;
    this.#live.set(id, sockets);
    sockets.add(socket);
    socket.once('close', () => {
      sockets.delete(socket);
      if (sockets.size === 0 && this.#live.get(id) === sockets) this.#live.delete(id);
    });
  }

  async #endClosed(): Promise<void> {
    for (const [id, sockets] of this.#live) {
      // A database that is away closes nothing.
      if (await this.#directory.isLive(id).catch(() => true)) continue;
      for (const socket of sockets) socket.destroy();
    }
  }
}

async function connectFor(
  done: (error: Error | null, socket: Duplex) => void,
  point: NamespacePoint,
  port: number,
): Promise<void> {
  try {
    done(null, await connectInside(point, port));
  } catch (error) {
    done(error instanceof Error ? error : new Error(String(error)), undefined as never);
  }
}

function unreachable(port: number, cause: Error): LonghaulError {
  if (cause instanceof LonghaulError) return cause;
  return new LonghaulError('sandbox_unavailable', `nothing answers on port ${port}`, { cause });
}

function headOf(first: string, headers: HeaderPairs): string {
  return `${[first, ...headers.map(([name, value]) => `${name}: ${value}`)].join('\r\n')}\r\n\r\n`;
}

/** Taken apart by hand: what a program makes of its paths is its own business, and is passed on as it came. */
function tokenOfPath(path: string | undefined): string | undefined {
  const query = (path ?? '').split('?').slice(1).join('?');
  return new URLSearchParams(query).get(PORT_TOKEN_PARAMETER) ?? undefined;
}

function withoutToken(path: string | undefined): string {
  // An absolute form names a host of its own, which is not the one that was checked.
  const local = path?.startsWith('/') === true ? path : '/';
  const [before = '/', ...rest] = local.split('?');
  if (rest.length === 0) return before;
  const kept = rest
    .join('?')
    .split('&')
    .filter((part) => part.split('=')[0] !== PORT_TOKEN_PARAMETER);
  const query = kept.join('&');
  // Two slashes would make a redirect to another host of it.
  return `${before.replace(/^\/{2,}/, '/')}${query === '' ? '' : `?${query}`}`;
}
