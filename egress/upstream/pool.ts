import http from 'node:http';
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import type net from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { EgressTarget } from '../decision.ts';
import { formatAuthority } from '../hosts.ts';
import { EgressFailure, toFailure } from '../proxy/failure.ts';
import type { Dialler } from './dialler.ts';

const IDLE_MS = 60_000;
const SOCKETS_PER_ORIGIN = 128;
const FREE_SOCKETS = 16;
/** Origins whose protocol is remembered. */
const ORIGINS_MAX = 256;

interface AgentOptions extends http.AgentOptions {
  target?: EgressTarget;
}

/** Keeps connections of HTTP/1.1, each to the address that was checked when it was opened. */
class CheckedAgent extends http.Agent {
  readonly #dial: (target: EgressTarget) => Promise<net.Socket>;
  /** Connections that turned out to speak HTTP/1.1 after both had been offered. */
  readonly spare = new Map<string, net.Socket>();

  constructor(dial: (target: EgressTarget) => Promise<net.Socket>) {
    super({ keepAlive: true, maxSockets: SOCKETS_PER_ORIGIN, maxFreeSockets: FREE_SOCKETS, timeout: IDLE_MS });
    this.#dial = dial;
  }

  override getName(options?: AgentOptions): string {
    return options?.target === undefined ? '' : originOf(options.target);
  }

  override createConnection(
    options: http.ClientRequestArgs,
    callback?: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    const { target } = options as AgentOptions;
    void this.#connect(target, callback as (error: Error | null, socket?: net.Socket) => void);
  }

  async #connect(
    target: EgressTarget | undefined,
    done: (error: Error | null, socket?: net.Socket) => void,
  ): Promise<void> {
    let socket: net.Socket;
    try {
      if (target === undefined) throw new Error('a connection without target');
      const spare = this.spare.get(originOf(target));
      this.spare.delete(originOf(target));
      socket = spare?.readable === true && !spare.destroyed ? spare : await this.#dial(target);
    } catch (error) {
      done(toFailure(error));
      return;
    }
    done(null, socket);
  }
}

const originOf = ({ host, port, isTls }: EgressTarget): string => `${isTls ? 'https' : 'http'}://${host}:${port}`;

export interface UpstreamPoolOptions {
  dialler: Dialler;
  isAllowed: (address: string, target: EgressTarget) => boolean;
  /** Of all origins together. */
  maxSockets: number;
  /** Tells of each connection that was refused. */
  onFull: () => void;
}

/** The connections of one sandbox to upstreams. Nothing of it is ever used for another. */
export class UpstreamPool {
  readonly #options: UpstreamPoolOptions;
  readonly #dialler: Dialler;
  /** All that are open, whoever uses them; with those that are about to be, they are bounded. */
  readonly #sockets = new Set<net.Socket>();
  #dialling = 0;
  /** Of each session of HTTP/2 its connection and how many streams it has: one without any is kept for later only. */
  readonly #uses = new WeakMap<ClientHttp2Session, { socket: net.Socket; streams: number }>();
  #agent: CheckedAgent;
  readonly #sessions = new Map<string, ClientHttp2Session | 'http1'>();
  readonly #opening = new Map<string, Promise<ClientHttp2Session | null>>();
  readonly #closing = new AbortController();

  constructor(options: UpstreamPoolOptions) {
    this.#options = options;
    this.#dialler = options.dialler;
    this.#agent = this.#newAgent();
  }

  #newAgent(): CheckedAgent {
    return new CheckedAgent((target) => this.dial(target, target.isTls ? ['http/1.1'] : null));
  }

  /** Connections that are open, and those that are being opened. */
  get sockets(): number {
    return this.#sockets.size + this.#dialling;
  }

  /** A new connection; `protocols` null: without TLS. */
  async dial(target: EgressTarget, protocols: string[] | null): Promise<net.Socket> {
    if (!this.makeRoom()) throw this.full();
    const isAllowed = (address: string): boolean => this.#options.isAllowed(address, target);
    this.#dialling += 1;
    let socket: net.Socket;
    try {
      socket = await this.#dialler.dial(target, isAllowed, protocols, this.#closing.signal);
    } finally {
      this.#dialling -= 1;
    }
    // Nobody would end one that came after all others were.
    if (this.#closing.signal.aborted) socket.destroy();
    if (socket.closed) return socket;
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    return socket;
  }

  /** False when one more connection is one too many: those that are only kept for later make room first. */
  makeRoom(): boolean {
    return this.sockets < this.#options.maxSockets || this.#endIdle();
  }

  /** What is said of a connection too many. */
  full(): EgressFailure {
    this.#options.onFull();
    const message = `this sandbox has ${this.#options.maxSockets} connections to other hosts open, as many as it may have (LONGHAUL_EGRESS_SOCKETS). End some, or wait for some to end.`;
    return new EgressFailure(429, 'sockets_exhausted', message);
  }

  /** Ends a connection that nobody uses. False: all are in use. */
  #endIdle(): boolean {
    for (const [origin, socket] of this.#agent.spare) {
      this.#agent.spare.delete(origin);
      if (this.#drop(socket)) return true;
    }
    for (const sockets of Object.values(this.#agent.freeSockets)) {
      for (const socket of sockets ?? []) if (this.#drop(socket)) return true;
    }
    for (const [origin, session] of this.#sessions) {
      const use = session === 'http1' ? undefined : this.#uses.get(session);
      if (session === 'http1' || use === undefined || use.streams > 0) continue;
      this.#sessions.delete(origin);
      session.destroy();
      if (this.#drop(use.socket)) return true;
    }
    return false;
  }

  #drop(socket: net.Socket): boolean {
    socket.destroy();
    return this.#sockets.delete(socket);
  }

  /** A request of HTTP/1.1 over a kept or a new connection. */
  request(target: EgressTarget, method: string, path: string, headers: string[]): http.ClientRequest {
    const parent = target.isTls || target.via !== undefined ? null : this.#dialler.parentProxy;
    const identity = parent?.authorization ?? null;
    const whole = parent === null ? path : `http://${formatAuthority(target, 80)}${path === '*' ? '' : path}`;
    const options: http.RequestOptions & AgentOptions = {
      agent: this.#agent,
      target,
      host: target.host,
      port: target.port,
      method,
      path: whole,
      headers: identity === null ? headers : [...headers, 'proxy-authorization', identity],
      maxHeaderSize: 256 * 1024,
      insecureHTTPParser: false,
    };
    return http.request(options);
  }

  /** A session of HTTP/2; null when the upstream does not speak it. */
  async session(target: EgressTarget): Promise<ClientHttp2Session | null> {
    if (!target.isTls) return null;
    const origin = originOf(target);
    const known = this.#sessions.get(origin);
    if (known === 'http1') return null;
    if (known !== undefined && !known.closed && !known.destroyed) return known;
    const opening = this.#opening.get(origin);
    if (opening !== undefined) return opening;
    const opened = this.#open(target, origin).finally(() => this.#opening.delete(origin));
    this.#opening.set(origin, opened);
    return opened;
  }

  /** A request on a session. */
  stream(
    session: ClientHttp2Session,
    headers: http2.OutgoingHttpHeaders,
    options: http2.ClientSessionRequestOptions,
  ): ClientHttp2Stream {
    const stream = session.request(headers, options);
    const use = this.#uses.get(session);
    if (use === undefined) return stream;
    use.streams += 1;
    stream.once('close', () => (use.streams -= 1));
    return stream;
  }

  async #open(target: EgressTarget, origin: string): Promise<ClientHttp2Session | null> {
    const socket = (await this.dial(target, ['h2', 'http/1.1'])) as TLSSocket;
    const [oldest] = this.#sessions.keys();
    if (this.#sessions.size >= ORIGINS_MAX && oldest !== undefined) this.#sessions.delete(oldest);
    if (socket.alpnProtocol !== 'h2') {
      this.#sessions.set(origin, 'http1');
      this.#agent.spare.get(origin)?.destroy();
      this.#agent.spare.set(origin, socket);
      return null;
    }
    const session = http2.connect(origin, { createConnection: () => socket });
    this.#uses.set(session, { socket, streams: 0 });
    const forget = (): void => {
      if (this.#sessions.get(origin) === session) this.#sessions.delete(origin);
    };
    // Each stream tells of it by itself.
    session.on('error', () => undefined);
    session.on('goaway', forget);
    session.on('close', forget);
    session.setTimeout(IDLE_MS * 15, () => session.close());
    this.#sessions.set(origin, session);
    return session;
  }

  /** Every address is checked anew: what runs ends by itself, the next request opens its own connection. */
  renew(): void {
    const old = this.#agent;
    this.#agent = this.#newAgent();
    // Of its own; the types leave it out.
    Object.assign(old, { keepAlive: false });
    for (const sockets of Object.values(old.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
    for (const socket of old.spare.values()) socket.destroy();
    for (const session of this.#sessions.values()) if (session !== 'http1') session.close();
    this.#sessions.clear();
  }

  /** Cuts all connections. */
  close(): void {
    this.#closing.abort(new Error('the sandbox is gone'));
    this.#agent.destroy();
    for (const session of this.#sessions.values()) if (session !== 'http1') session.destroy();
    this.#sessions.clear();
    for (const socket of this.#sockets) socket.destroy();
  }
}
