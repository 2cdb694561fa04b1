import { createServer, ServerResponse, type IncomingMessage, type Server } from 'node:http';
import http2 from 'node:http2';
import type net from 'node:net';
import type { Duplex } from 'node:stream';
import type { Logger } from '../../telemetry/logger.ts';
import type { EgressLimits } from '../config.ts';
import type { SandboxEgress } from '../sandbox.ts';
import type { Leaves } from '../tls/leaves.ts';
import { Exchange } from './exchange.ts';
import { EgressFailure, rawAnswer, toldAs } from './failure.ts';
import { Http1Inbound, Http2Inbound } from './inbound.ts';
import { printable, type Tunnel } from './request-head.ts';
import { openTunnel } from './tunnel.ts';
import { WebSocketExchange } from './web-socket.ts';

const KEEP_ALIVE_MS = 75_000;
const STREAMS_MAX = 100;
/** Requests sent on one connection without waiting for answers. */
const PIPELINED_MAX = 32;

const UNKNOWN = {
  status: 407,
  code: 'proxy_authentication_required',
  message: 'this proxy serves sandboxes with their own credentials',
};

/** What is known of a connection that requests come on. */
interface Line {
  /** null: the requests have to say it. */
  sandbox: SandboxEgress | null;
  tunnel: Tunnel | null;
  /** Runs out when no complete head has come. */
  deadline: NodeJS.Timeout | undefined;
  unanswered: number;
  /** Who said so on this connection before. */
  admitted: SandboxEgress | null;
}

export interface FrontOptions {
  leaves: Leaves;
  limits: EgressLimits;
  logger: Logger;
  /** The sandbox a proxy password belongs to. */
  identify: (username: string, password: string) => Promise<SandboxEgress | null>;
}

/** The proxy as sandboxes see it: takes connections, finds the requests in them, hands each to an exchange. */
export class Front {
  readonly #options: FrontOptions;
  readonly #http: Server;
  readonly #lines = new WeakMap<Duplex, Line>();

  constructor(options: FrontOptions) {
    this.#options = options;
    this.#http = createServer({
      maxHeaderSize: options.limits.headerBytes,
      keepAliveTimeout: KEEP_ALIVE_MS,
      insecureHTTPParser: false,
    });
    this.#http.timeout = 0;
    this.#http.on('request', (req: IncomingMessage, res: ServerResponse) => this.#onRequest(req, res));
    this.#http.on('checkContinue', (req: IncomingMessage, res: ServerResponse) => this.#onRequest(req, res));
    this.#http.on('upgrade', (req, socket, head) => this.#onUpgrade(req, socket, head));
    this.#http.on('connect', (req, socket, head) => this.#onConnect(req, socket, head));
    this.#http.on('clientError', (error, socket) => this.#onBroken(error, socket));
  }

  /** A connection of a sandbox; who it is was settled by where it came in. */
  accept(socket: net.Socket, sandbox: SandboxEgress): void {
    socket.on('error', () => undefined);
    if (!sandbox.admit(socket)) {
      const message = `this sandbox has ${this.#options.limits.connectionsPerSandbox} connections to the proxy open, as many as it may have (LONGHAUL_EGRESS_CONNECTIONS). End some, or wait for some to end.`;
      const told = { status: 503, code: 'connections_exhausted' };
      sandbox.engine.refused({ target: null, asked: 'a connection', method: null, path: null, ...told });
      socket.end(rawAnswer({ ...told, message }));
      socket.destroySoon();
      return;
    }
    socket.setNoDelay(true);
    this.serve(socket, sandbox, null);
  }

  /** A connection whose requests say whose they are. */
  acceptUnknown(socket: net.Socket): void {
    socket.on('error', () => undefined);
    socket.setNoDelay(true);
    this.serve(socket, null, null);
  }

  /** Finds requests of HTTP/1.1 in a connection. */
  serve(socket: net.Socket, sandbox: SandboxEgress | null, tunnel: Tunnel | null): void {
    this.#lines.set(socket, { sandbox, tunnel, deadline: undefined, unanswered: 0, admitted: null });
    socket.once('close', () => clearTimeout(this.#lines.get(socket)?.deadline));
    this.#await(socket, this.#options.limits.handshakeMs);
    this.#http.emit('connection', socket);
  }

  /** Finds requests of HTTP/2 in a connection. */
  serveHttp2(socket: net.Socket, sandbox: SandboxEgress, tunnel: Tunnel): void {
    const session = http2.performServerHandshake(socket, {
      maxHeaderListPairs: 256,
      maxSessionMemory: 10,
      settings: { maxConcurrentStreams: STREAMS_MAX, maxHeaderListSize: this.#options.limits.headerBytes },
    });
    session.on('error', () => undefined);
    // Half open means nothing here, and who was killed says no more than this.
    socket.once('end', () => socket.destroy());
    let open = 0;
    // A session with streams may be silent for long; each stream is watched by itself.
    session.setTimeout(KEEP_ALIVE_MS, () => {
      if (open === 0) session.close();
    });
    session.on('stream', (stream, _headers, flags, ...rest: unknown[]) => {
      open += 1;
      stream.once('close', () => (open -= 1));
      const isEnded = (flags & http2.constants.NGHTTP2_FLAG_END_STREAM) !== 0;
      const inbound = new Http2Inbound(stream, rest[0] as string[], isEnded);
      void new Exchange(inbound, sandbox).run(tunnel);
    });
  }

  #onRequest(req: IncomingMessage, res: ServerResponse): void {
    const line = this.#lineOf(req.socket);
    if (line === undefined) return;
    const { limits } = this.#options;
    line.unanswered += 1;
    if (line.unanswered > PIPELINED_MAX) {
      req.socket.destroy();
      return;
    }
    res.once('close', () => {
      line.unanswered -= 1;
      if (line.unanswered === 0) this.#await(req.socket, KEEP_ALIVE_MS + limits.handshakeMs);
    });
    res.on('error', () => undefined);
    const inbound = new Http1Inbound(req, res);
    void this.#withSandbox(req, line, (sandbox) => {
      if (sandbox !== null) void new Exchange(inbound, sandbox).run(line.tunnel);
      else {
        const { headers, body } = toldAs(UNKNOWN);
        inbound.answer(UNKNOWN.status, '', [...headers, ['connection', 'close']], false).end(body);
      }
    });
  }

  #onUpgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    const line = this.#lineOf(socket);
    if (line === undefined) return;
    const { handshakeMs: quietMs } = this.#options.limits;
    void this.#withSandbox(req, line, (sandbox) => {
      if (sandbox === null) socket.end(rawAnswer(UNKNOWN));
      else if (req.headers.upgrade?.toLowerCase() === 'websocket' && req.method === 'GET') {
        void new WebSocketExchange(req, socket as net.Socket, head, sandbox, quietMs).run(line.tunnel);
      } else this.#declineUpgrade(req, socket, sandbox, line.tunnel);
    });
  }

  #declineUpgrade(req: IncomingMessage, socket: Duplex, sandbox: SandboxEgress, tunnel: Tunnel | null): void {
    // Another protocol was offered (h2c): the answer may stay with this one, and does.
    const res = new ServerResponse(req);
    res.assignSocket(socket as net.Socket);
    res.shouldKeepAlive = false;
    res.once('finish', () => socket.end());
    const inbound = new Http1Inbound(req, res);
    if (inbound.hasBody) {
      const message = 'a request with a body cannot offer another protocol here';
      socket.end(rawAnswer({ status: 400, code: 'unsupported_upgrade', message }));
      return;
    }
    void new Exchange(inbound, sandbox).run(tunnel);
  }

  #onConnect(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    const line = this.#lineOf(socket);
    if (line === undefined) return;
    if (line.tunnel !== null) {
      socket.end(rawAnswer({ status: 400, code: 'malformed_request', message: 'a tunnel opens no tunnels' }));
      return;
    }
    const { leaves, limits, logger } = this.#options;
    if (head.length > 0) socket.unshift(head);
    void this.#withSandbox(req, line, (sandbox) => {
      if (sandbox === null) socket.end(rawAnswer(UNKNOWN));
      else void openTunnel(req.url ?? '', socket as net.Socket, sandbox, { leaves, limits, logger, front: this });
    });
  }

  /** Whose the request is: known by the connection, else by what it says. */
  async #withSandbox(req: IncomingMessage, line: Line, go: (sandbox: SandboxEgress | null) => void): Promise<void> {
    if (line.sandbox !== null) {
      go(line.sandbox);
      return;
    }
    const { socket } = req;
    const basic = /^Basic ([A-Za-z0-9+/=]+)$/i.exec(req.headers['proxy-authorization'] ?? '')?.[1] ?? '';
    const said = Buffer.from(basic, 'base64').toString('utf8');
    const colon = said.indexOf(':');
    let sandbox: SandboxEgress | null = null;
    try {
      if (colon > 0) sandbox = await this.#options.identify(said.slice(0, colon), said.slice(colon + 1));
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'a sandbox could not be identified');
      socket.destroy();
      return;
    }
    if (sandbox !== null && line.admitted !== sandbox) {
      // One connection, one sandbox.
      if (line.admitted !== null || !sandbox.admit(socket)) {
        socket.destroy();
        return;
      }
      line.admitted = sandbox;
    }
    go(sandbox);
  }

  #onBroken(error: Error, socket: Duplex): void {
    const line = this.#lines.get(socket);
    clearTimeout(line?.deadline);
    const { code } = error as NodeJS.ErrnoException;
    if (line === undefined || code === 'ECONNRESET' || !socket.writable) {
      socket.destroy();
      return;
    }
    const isLarge = code === 'HPE_HEADER_OVERFLOW';
    const failure = isLarge
      ? new EgressFailure(431, 'headers_too_large', `headers may have ${this.#options.limits.headerBytes} bytes`)
      : new EgressFailure(400, 'malformed_request', `the request is not clear HTTP (${printable(code ?? 'unknown')})`);
    line.sandbox?.engine.refused({
      target:
        line.tunnel === null ? null : { host: line.tunnel.host, port: line.tunnel.port, isTls: line.tunnel.isTls },
      asked: failure.code,
      method: null,
      path: null,
      status: failure.status,
      code: failure.code,
    });
    socket.end(rawAnswer(failure));
    (socket as net.Socket).destroySoon();
  }

  /** The next head must be complete in time: bytes that trickle do not help. */
  #await(socket: net.Socket, limitMs: number): void {
    const line = this.#lines.get(socket);
    if (line === undefined || socket.destroyed) return;
    clearTimeout(line.deadline);
    line.deadline = setTimeout(() => socket.destroy(), limitMs);
    line.deadline.unref();
  }

  /** Of a head that is complete. */
  #lineOf(socket: Duplex): Line | undefined {
    const line = this.#lines.get(socket);
    if (line === undefined) socket.destroy();
    clearTimeout(line?.deadline);
    return line;
  }

  close(): void {
    this.#http.closeAllConnections();
  }
}
