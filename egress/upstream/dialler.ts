import net from 'node:net';
import tls, { type SecureContext } from 'node:tls';
import { anyAbort } from '../../contracts/abort.ts';
import type { ParentProxyConfig } from '../config.ts';
import type { EgressTarget } from '../decision.ts';
import { EgressFailure } from '../proxy/failure.ts';
import { ResolveError, type Resolver } from '../resolver.ts';
import { connectThrough } from './parent-proxy.ts';

/** One address out of several is given up for the next after this long. */
const ATTEMPT_MS = 3_000;

export interface DiallerOptions {
  resolver: Resolver;
  connectMs: number;
  /** Authorities upstreams are checked against. */
  authorities: SecureContext;
  parentProxy: ParentProxyConfig | null;
}

/** Opens connections to upstreams: resolves once, checks every address, and dials what was checked. */
export class Dialler {
  readonly #options: DiallerOptions;

  constructor(options: DiallerOptions) {
    this.#options = options;
  }

  get parentProxy(): ParentProxyConfig | null {
    return this.#options.parentProxy;
  }

  /** A connection that is ready for the first byte; with TLS, its certificate is checked. */
  async dial(
    target: EgressTarget,
    isAllowed: (address: string) => boolean,
    protocols: string[] | null,
    signal: AbortSignal,
  ): Promise<net.Socket> {
    // By hand: `signal` lives as long as the sandbox, and combined signals would gather on it.
    const ending = new AbortController();
    const limit = ending.signal;
    const onAbort = (): void => ending.abort(signal.reason);
    const timer = setTimeout(() => ending.abort(new Error('too late')), this.#options.connectMs);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      signal.throwIfAborted();
      const where = target.via ?? target;
      const socket = await this.#connect(target, isAllowed, limit);
      if (protocols === null && target.via?.isTls !== true) return socket;
      return await this.#secure(socket, where, protocols ?? ['http/1.1'], limit);
    } catch (error) {
      if (error instanceof EgressFailure) throw error;
      if (limit.aborted && !signal.aborted) {
        throw new EgressFailure(504, 'upstream_timeout', `${target.host} did not take the connection in time`, error);
      }
      throw unreachable(target, error);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    }
  }

  async #connect(
    target: EgressTarget,
    isAllowed: (address: string) => boolean,
    signal: AbortSignal,
  ): Promise<net.Socket> {
    const { parentProxy, resolver } = this.#options;
    // Our own services are reached from here: no other proxy stands between.
    if (parentProxy !== null && target.via === undefined) {
      // Names are the other proxy's to resolve; an address can be judged here.
      if (net.isIP(target.host) !== 0 && !isAllowed(target.host)) throw forbidden(target);
      const [address = parentProxy.host] = await resolver.resolve(parentProxy.host);
      const socket = await connectTo(address, parentProxy.port, signal);
      return connectThrough(socket, parentProxy, target, this.#options.authorities, signal);
    }
    const { host, port } = target.via ?? target;
    const addresses = await resolved(resolver, host);
    const allowed = addresses.filter(isAllowed);
    if (allowed.length === 0) throw forbidden(target);
    return connectToAny(allowed, port, signal);
  }

  #secure(socket: net.Socket, target: EgressTarget, protocols: string[], signal: AbortSignal): Promise<net.Socket> {
    return new Promise((resolve, reject) => {
      const isAddress = net.isIP(target.host) !== 0;
      const secured = tls.connect({
        socket,
        host: target.host,
        ...(isAddress ? {} : { servername: target.host }),
        ALPNProtocols: protocols,
        secureContext: this.#options.authorities,
        rejectUnauthorized: true,
        minVersion: 'TLSv1.2',
      });
      const onAbort = (): void => void secured.destroy(signal.reason as Error);
      signal.addEventListener('abort', onAbort, { once: true });
      secured.once('secureConnect', () => {
        signal.removeEventListener('abort', onAbort);
        secured.removeAllListeners('error');
        resolve(secured);
      });
      secured.once('error', (error) => {
        signal.removeEventListener('abort', onAbort);
        socket.destroy();
        reject(signal.aborted ? error : untrusted(target, error));
      });
    });
  }
}

async function resolved(resolver: Resolver, host: string): Promise<string[]> {
  try {
    return await resolver.resolve(host);
  } catch (error) {
    if (error instanceof ResolveError) throw new EgressFailure(502, error.code, error.message, error);
    throw error;
  }
}

const forbidden = (target: EgressTarget): EgressFailure =>
  new EgressFailure(
    403,
    'address_forbidden',
    `${target.host} is at an address that sandboxes may not reach (private, local or this machine's own); an environment can open it`,
  );

function unreachable(target: EgressTarget, error: unknown): EgressFailure {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown';
  return new EgressFailure(
    502,
    'upstream_unreachable',
    `${target.host}:${target.port} cannot be reached (${code})`,
    error,
  );
}

function untrusted(target: EgressTarget, error: Error): EgressFailure {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown';
  const reason = `no TLS connection to ${target.host}:${target.port} can be trusted (${code})`;
  return new EgressFailure(502, 'upstream_tls', reason, error);
}

async function connectToAny(addresses: string[], port: number, signal: AbortSignal): Promise<net.Socket> {
  let failure: unknown;
  for (const [index, address] of addresses.entries()) {
    const isLast = index === addresses.length - 1;
    const limit = isLast ? signal : anyAbort([signal, AbortSignal.timeout(ATTEMPT_MS)]);
    try {
      return await connectTo(address, port, limit);
    } catch (error) {
      failure = error;
      signal.throwIfAborted();
    }
  }
  throw failure;
}

function connectTo(host: string, port: number, signal: AbortSignal): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port, noDelay: true, keepAlive: true });
    const onAbort = (): void => void socket.destroy(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('connect', () => {
      signal.removeEventListener('abort', onAbort);
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error) => {
      signal.removeEventListener('abort', onAbort);
      reject(error);
    });
  });
}
