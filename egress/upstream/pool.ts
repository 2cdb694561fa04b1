import http from 'node:http';
import http2, { type ClientHttp2Session } from 'node:http2';
import type net from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { EgressTarget } from '../decision.ts';
import { formatAuthority } from '../hosts.ts';
import { toFailure } from '../proxy/failure.ts';
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

/** The connections of one sandbox to upstreams. Nothing of it is ever used for another. */
export class UpstreamPool {
  readonly #dialler: Dialler;
  readonly #isAllowed: (address: string, target: EgressTarget) => boolean;
  #agent: CheckedAgent;
  readonly #sessions = new Map<string, ClientHttp2Session | 'http1'>();
  readonly #opening = new Map<string, Promise<ClientHttp2Session | null>>();
  readonly #closing = new AbortController();

  constructor(dialler: Dialler, isAllowed: (address: string, target: EgressTarget) => boolean) {
    this.#dialler = dialler;
    this.#isAllowed = isAllowed;
    this.#agent = this.#newAgent();
  }

  #newAgent(): CheckedAgent {
    return new CheckedAgent((target) => this.dial(target, target.isTls ? ['http/1.1'] : null));
  }

  /** A new connection; `protocols` null: without TLS. */
  dial(target: EgressTarget, protocols: string[] | null): Promise<net.Socket> {
    const isAllowed = (address: string): boolean => this.#isAllowed(address, target);
    return this.#dialler.dial(target, isAllowed, protocols, this.#closing.signal);
  }

  /** A request of HTTP/1.1 over a kept or a new connection. */
  request(target: EgressTarget, method: string, path: string, headers: string[]): http.ClientRequest {
    const parent = target.isTls ? null : this.#dialler.parentProxy;
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
    for (const socket of this.#agent.spare.values()) socket.destroy();
    for (const session of this.#sessions.values()) if (session !== 'http1') session.destroy();
    this.#sessions.clear();
  }
}
