import { closeSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { LonghaulError } from '../contracts/error-codes.ts';

/** Where remote sandboxes reach the broker. */
export interface PublicListenerConfig {
  host: string;
  port: number;
  /** What sandboxes are told to connect to: behind a load balancer it is another name. */
  advertised: { host: string; port: number };
  tls: { certFile: string; keyFile: string } | null;
}

/** Another egress proxy that everything goes through. */
export interface ParentProxyConfig {
  host: string;
  port: number;
  isTls: boolean;
  authorization: string | null;
}

export interface EgressLimits {
  connectionsPerSandbox: number;
  /** Connections to upstreams, of all origins together. */
  socketsPerSandbox: number;
  /** Requests, WebSockets and tunnels that are passed on unread, at a time. */
  flowsPerSandbox: number;
  headerBytes: number;
  /** From a connection, or a TLS hello, to a complete request head. */
  handshakeMs: number;
  /** No byte in either direction. */
  idleMs: number;
  /** Until an address has taken the connection and TLS is up. */
  connectMs: number;
  requestsPerSession: number;
  bytesPerSession: number;
}

export interface EgressConfig {
  databaseUrl: string;
  host: string;
  port: number;
  token: string;
  /** Of the certificate authority, whose key nobody else may read. */
  folder: string;
  /** What sandboxes trust, for the worker to read. */
  trustBundleFile: string;
  logLevel: string;
  /** Static names, like hosts(5); read again when it changes. Addresses are checked all the same. */
  hostsFile: string | null;
  /** Authorities of upstreams beside the system's. */
  upstreamCaFile: string | null;
  public: PublicListenerConfig | null;
  parentProxy: ParentProxyConfig | null;
  /** Ports of this machine where the product itself is: no environment opens them. */
  ownPorts: readonly number[];
  limits: EgressLimits;
}

export type Environment = Record<string, string | undefined>;

const LOOPBACK_HOSTS = new Set(['127.0.0.1', '::1', 'localhost']);
const MIB = 1024 * 1024;

/** This process's environment together with what a supervisor handed over by a pipe; to be called once. */
export function takeEnvironment(): Environment {
  const handedOver = text(process.env, 'LONGHAUL_CREDENTIALS_FD');
  const taken: Environment = { ...process.env };
  if (handedOver !== null) {
    Object.assign(taken, JSON.parse(readFileSync(Number(handedOver), 'utf8')));
    closeSync(Number(handedOver));
  }
  return taken;
}

/** Everything the broker needs; refuses what would leave it open to others. */
export function readEgressConfig(env: Environment): EgressConfig {
  const databaseUrl = text(env, 'DATABASE_URL');
  if (databaseUrl === null) throw new LonghaulError('setup_required', 'DATABASE_URL is not set');
  const host = text(env, 'LONGHAUL_EGRESS_HOST') ?? '127.0.0.1';
  if (!LOOPBACK_HOSTS.has(host) && env['LONGHAUL_ALLOW_PUBLIC'] !== '1') {
    throw new LonghaulError('insecure_bind', `refusing to bind ${host}: others could reach the broker's control`);
  }
  const folder = path.join(path.resolve(text(env, 'LONGHAUL_HOME') ?? '.longhaul'), 'egress');
  return {
    databaseUrl,
    host,
    port: wholeNumber(env, 'LONGHAUL_EGRESS_PORT', 4880),
    token: readToken(env),
    folder,
    trustBundleFile: path.resolve(text(env, 'LONGHAUL_EGRESS_TRUST_BUNDLE') ?? path.join(folder, 'trust-bundle.pem')),
    logLevel: text(env, 'LONGHAUL_LOG_LEVEL') ?? 'info',
    hostsFile: text(env, 'LONGHAUL_EGRESS_HOSTS'),
    upstreamCaFile: text(env, 'LONGHAUL_EGRESS_UPSTREAM_CA_FILE'),
    public: readPublic(env),
    parentProxy: readParentProxy(env),
    ownPorts: readOwnPorts(env, databaseUrl),
    limits: {
      connectionsPerSandbox: wholeNumber(env, 'LONGHAUL_EGRESS_CONNECTIONS', 256),
      socketsPerSandbox: wholeNumber(env, 'LONGHAUL_EGRESS_SOCKETS', 256),
      flowsPerSandbox: wholeNumber(env, 'LONGHAUL_EGRESS_CONCURRENT', 512),
      headerBytes: 64 * 1024,
      handshakeMs: wholeNumber(env, 'LONGHAUL_EGRESS_HANDSHAKE_MS', 15_000),
      idleMs: wholeNumber(env, 'LONGHAUL_EGRESS_IDLE_MS', 15 * 60_000),
      connectMs: wholeNumber(env, 'LONGHAUL_EGRESS_CONNECT_MS', 15_000),
      requestsPerSession: wholeNumber(env, 'LONGHAUL_EGRESS_REQUESTS', 1_000_000),
      bytesPerSession: wholeNumber(env, 'LONGHAUL_EGRESS_BYTES', 256 * 1024 * MIB),
    },
  };
}

/** The secret of the control interface: from the environment or a file, at least 32 characters. */
export function readToken(env: Environment): string {
  const file = text(env, 'LONGHAUL_EGRESS_TOKEN_FILE');
  const token = text(env, 'LONGHAUL_EGRESS_TOKEN') ?? (file === null ? null : readFileSync(file, 'utf8').trim());
  if (token === null || token.length < 32) {
    const names = 'LONGHAUL_EGRESS_TOKEN or LONGHAUL_EGRESS_TOKEN_FILE';
    throw new LonghaulError('setup_required', `${names} must hold a secret of at least 32 characters`);
  }
  return token;
}

/** The broker's control, the database and Temporal, which asks nobody who he is. */
function readOwnPorts(env: Environment, databaseUrl: string): number[] {
  const database = URL.canParse(databaseUrl) ? Number(new URL(databaseUrl).port || 5432) : 5432;
  const temporal = Number(/:(\d{1,5})$/.exec(text(env, 'TEMPORAL_ADDRESS') ?? '')?.[1] ?? 7233);
  return [wholeNumber(env, 'LONGHAUL_EGRESS_PORT', 4880), database, temporal];
}

function readPublic(env: Environment): PublicListenerConfig | null {
  const listen = text(env, 'LONGHAUL_EGRESS_PUBLIC');
  if (listen === null) return null;
  const { host, port } = hostAndPort('LONGHAUL_EGRESS_PUBLIC', listen);
  const certFile = text(env, 'LONGHAUL_EGRESS_PUBLIC_CERT_FILE');
  const keyFile = text(env, 'LONGHAUL_EGRESS_PUBLIC_KEY_FILE');
  if ((certFile === null) !== (keyFile === null)) {
    throw new LonghaulError('setup_required', 'LONGHAUL_EGRESS_PUBLIC_CERT_FILE and _KEY_FILE go together');
  }
  const tls = certFile === null || keyFile === null ? null : { certFile, keyFile };
  if (tls === null && !LOOPBACK_HOSTS.has(host) && env['LONGHAUL_ALLOW_PUBLIC'] !== '1') {
    const message = `refusing to serve sandboxes on ${host} without TLS: their proxy passwords would go in the clear`;
    throw new LonghaulError('insecure_bind', message);
  }
  const advertised = text(env, 'LONGHAUL_EGRESS_PUBLIC_ADDRESS');
  return {
    host,
    port,
    tls,
    advertised: advertised === null ? { host, port } : hostAndPort('LONGHAUL_EGRESS_PUBLIC_ADDRESS', advertised),
  };
}

/** `VAULT_URL` and `VAULT_PROXY_TOKEN`, as other harnesses have them. */
function readParentProxy(env: Environment): ParentProxyConfig | null {
  const address = text(env, 'VAULT_URL');
  if (address === null) return null;
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url === null || !['http:', 'https:'].includes(url.protocol)) {
    throw new LonghaulError('setup_required', 'VAULT_URL must be the http or https URL of an egress proxy');
  }
  const isTls = url.protocol === 'https:';
  const token = text(env, 'VAULT_PROXY_TOKEN');
  const user = token === null ? `${url.username}:${decodeURIComponent(url.password)}` : `x:${token}`;
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? (isTls ? 443 : 80) : Number(url.port),
    isTls,
    authorization: user === ':' ? null : `Basic ${Buffer.from(user).toString('base64')}`,
  };
}

function hostAndPort(name: string, value: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:]+)):(\d{1,5})$/.exec(value);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new LonghaulError('setup_required', `${name} must be host:port, not "${value}"`);
  }
  return { host: match[1] ?? match[2] ?? '', port };
}

function text(env: Environment, name: string): string | null {
  const value = env[name];
  return value === undefined || value === '' ? null : value;
}

function wholeNumber(env: Environment, name: string, standard: number): number {
  const given = text(env, name);
  if (given === null) return standard;
  const value = Number(given);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new LonghaulError('setup_required', `${name} must be a whole number, not "${given}"`);
  }
  return value;
}
