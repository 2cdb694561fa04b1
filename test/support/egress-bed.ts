import { spawn, type ChildProcess } from 'node:child_process';
import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http, { type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import http2 from 'node:http2';
import type { AddressInfo, Server } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { EgressPoint, SandboxRef, SandboxSpec } from '../../activities/sandbox/port.ts';
import { EgressClient, type EgressAccess } from '../../egress/client.ts';
import { authorityCertificate, leafCertificate, signerOf } from '../../egress/tls/certificates.ts';
import { type Finished, shell, smallSpec, soon } from './sandbox-commands.ts';
import { makeBed, type SandboxBed, type SandboxMode } from './sandbox-modes.ts';
import { anyFreePort } from '../../cli/stack/ports.ts';

const HOST = fileURLToPath(new URL('egress-host.mjs', import.meta.url));
const DIST = pathToFileURL(`${fileURLToPath(new URL('../../dist', import.meta.url))}/`).href;
const TOKEN = 'a token of the test, long enough for the broker';

/** What the test's engine says about a host. */
export interface HostRule {
  passthrough?: true;
  deny?: string[];
  swap?: { from: string; to: string };
  holdMs?: number;
  requestBytes?: number;
  responseBytes?: number;
}

export interface Rules {
  hosts: Record<string, HostRule>;
  /** Opened although they are not public. */
  addresses: string[];
}

export interface LogEntry {
  type: string;
  code?: string;
  error?: string;
  status?: number | null;
  method?: string | null;
  path?: string | null;
  sandboxId?: string;
  target?: { host: string; port: number; isTls: boolean } | null;
  bytesIn?: number;
  bytesOut?: number;
  asked?: string;
  message?: string;
}

export interface Upstream {
  port: number;
  /** What each request came with. */
  requests: { method: string; url: string; headers: http.IncomingHttpHeaders; httpVersion: string; body: string }[];
  server: Server;
  close(): void;
}

/** An authority of the test's own for upstreams: the broker is told to trust it, sandboxes are not. */
export class UpstreamAuthority {
  readonly certificate: string;
  readonly #signer;

  constructor() {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.certificate = authorityCertificate(privateKey, 'upstreams of the test');
    this.#signer = signerOf(privateKey, new X509Certificate(this.certificate));
  }

  issue(host: string): { key: string; cert: string } {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const spki = createPublicKey(createPrivateKey(key)).export({ type: 'spki', format: 'der' });
    return { key, cert: leafCertificate(host, spki, this.#signer) };
  }
}

/** Reads a body to its end. */
export async function bodyOf(req: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('latin1');
}

/** Remembers what came, and answers it unless `answer` does. */
function remembering(requests: Upstream['requests'], answer?: RequestListener): RequestListener {
  return (req: IncomingMessage, res: ServerResponse) => {
    if (answer !== undefined && req.url?.startsWith('/echo') !== true) {
      answer(req, res);
      return;
    }
    void bodyOf(req).then((body) => {
      const { method = '', url = '', headers, httpVersion } = req;
      requests.push({ method, url, headers, httpVersion, body });
      const text = JSON.stringify({ method, url, headers, httpVersion, body });
      return res.writeHead(200, { 'content-type': 'application/json' }).end(text);
    });
  };
}

async function listening(server: Server, requests: Upstream['requests']): Promise<Upstream> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const close = (): void => {
    server.close();
    (server as http.Server).closeAllConnections?.();
  };
  return { port, requests, server, close };
}

/** An https upstream that speaks both versions of HTTP. */
export function secureUpstream(
  identity: { key: string; cert: string },
  answer?: RequestListener,
  protocols: 'both' | 'http1' = 'both',
): Promise<Upstream> {
  const requests: Upstream['requests'] = [];
  const options = { ...identity, allowHTTP1: true, ...(protocols === 'http1' ? { ALPNProtocols: ['http/1.1'] } : {}) };
  const listener = remembering(requests, answer) as unknown as Parameters<typeof http2.createSecureServer>[1];
  return listening(http2.createSecureServer(options, listener), requests);
}

/** A plain http upstream. */
export function plainUpstream(answer?: RequestListener): Promise<Upstream> {
  const requests: Upstream['requests'] = [];
  return listening(http.createServer(remembering(requests, answer)), requests);
}

interface EgressBedOptions {
  mode: SandboxMode;
  rules: Rules;
  /** The product's policies over this database in place of rules; `secretsFile`: values by credential, as JSON. */
  policies?: { databaseUrl: string; secretsFile: string; holdMs: number };
  env?: Record<string, string>;
  /** Of the sandboxes' provider: programs of harnesses that they see. */
  harnessDir?: string;
}

/** A broker in a process of its own with the test's rules, and real local sandboxes that go out through it. */
export class EgressBed {
  readonly authority = new UpstreamAuthority();
  readonly folder: string;
  readonly sandboxes: SandboxBed;
  readonly client: EgressClient;
  readonly #options: EgressBedOptions;
  readonly #hosts: string[] = [];
  readonly #known = new Map<string, { sandboxId: string; sessionId: string; point: EgressPoint | null }>();
  #broker: ChildProcess | undefined;
  readonly port: number;

  private constructor(options: EgressBedOptions, port: number) {
    this.#options = options;
    this.port = port;
    this.folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-egress-'));
    chmodSync(this.folder, 0o755);
    const { harnessDir } = options;
    const provider = JSON.stringify({ name: 'local', harnessDir });
    this.sandboxes = makeBed(options.mode, harnessDir === undefined ? {} : { SANDBOX_PROVIDER: provider });
    this.client = new EgressClient({ url: `http://127.0.0.1:${port}`, token: TOKEN });
    writeFileSync(this.#file('upstreams.pem'), this.authority.certificate);
    writeFileSync(this.#file('directory.json'), '[]');
    writeFileSync(this.#file('log'), '');
    writeFileSync(this.#file('hosts'), '');
    if (options.mode.uid !== null) {
      mkdirSync(this.#file('egress'));
      for (const name of ['', 'egress', 'log']) chownSync(this.#file(name), options.mode.uid, options.mode.uid);
    }
    this.rules(options.rules);
  }

  static async start(options: EgressBedOptions): Promise<EgressBed> {
    const bed = new EgressBed(options, await anyFreePort());
    await bed.startBroker();
    return bed;
  }

  #file(name: string): string {
    return path.join(this.folder, name);
  }

  get trustBundle(): string {
    return readFileSync(this.#file('egress/trust-bundle.pem'), 'utf8');
  }

  get brokerPid(): number {
    return this.#broker?.pid ?? 0;
  }

  /** Replaces the rules. */
  rules(rules: Rules): void {
    writeFileSync(this.#file('rules.json'), JSON.stringify(rules));
  }

  /** Lets a name resolve. */
  name(host: string, ...addresses: string[]): void {
    this.#hosts.push(...addresses.map((address) => `${address} ${host}`));
    writeFileSync(this.#file('hosts'), `${this.#hosts.join('\n')}\n`);
  }

  /** Forgets all names and sets these. */
  names(lines: string[]): void {
    this.#hosts.splice(0, this.#hosts.length, ...lines);
    writeFileSync(this.#file('hosts'), `${lines.join('\n')}\n`);
  }

  log(): LogEntry[] {
    const lines = readFileSync(this.#file('log'), 'utf8').split('\n');
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as LogEntry);
  }

  async startBroker(): Promise<void> {
    const uid = this.#options.mode.uid;
    const env = {
      LONGHAUL_HOME: this.folder,
      LONGHAUL_EGRESS_PORT: String(this.port),
      LONGHAUL_EGRESS_TOKEN: TOKEN,
      LONGHAUL_EGRESS_HOSTS: this.#file('hosts'),
      LONGHAUL_EGRESS_UPSTREAM_CA_FILE: this.#file('upstreams.pem'),
      ...this.#options.env,
    };
    const files = { rulesFile: this.#file('rules.json'), logFile: this.#file('log') };
    const host = {
      dist: DIST,
      env,
      directoryFile: this.#file('directory.json'),
      policies: this.#options.policies ?? null,
      ...files,
    };
    const broker = spawn(process.execPath, [HOST], {
      env: { PATH: process.env['PATH'] ?? '', EGRESS_HOST: JSON.stringify(host) },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(uid === null ? {} : { uid, gid: uid }),
    });
    this.#broker = broker;
    let complaint = '';
    broker.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
    const ended = once(broker, 'close').then(() => {
      throw new Error(`the broker ended: ${complaint} ${readFileSync(this.#file('log'), 'utf8').slice(-2_000)}`);
    });
    ended.catch(() => undefined);
    for await (const line of createInterface({ input: broker.stdout })) if (line.startsWith('ready')) return;
    await ended;
  }

  /** Samples of the broker's metrics by name with labels, as they are written. */
  async metrics(): Promise<Map<string, number>> {
    const answer = await fetch(`http://127.0.0.1:${this.port}/metrics`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    const lines = (await answer.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]));
  }

  /** SIGKILL. */
  async killBroker(): Promise<void> {
    const broker = this.#broker;
    if (broker === undefined || broker.exitCode !== null || broker.signalCode !== null) return;
    const closed = once(broker, 'close');
    broker.kill('SIGKILL');
    await closed;
  }

  /** A sandbox that goes out through the broker. */
  async sandbox(
    name: string,
    sessionId = `session-${name}`,
    change: Partial<SandboxSpec> = {},
  ): Promise<EgressSandbox> {
    const { provider, rootDir } = this.sandboxes;
    const ref = await provider.create(smallSpec('conformance', { pids: 128, ...change }), name, soon());
    const point = (await provider.egressPoint(ref, soon())) ?? holderOf(rootDir, ref);
    this.know(ref.id, sessionId, point);
    const access = await this.client.attach(ref.id, sessionId, point);
    const trusted = new TextEncoder().encode(this.trustBundle);
    await provider.writeFile(ref, '/workspace/trust.pem', trusted, soon());
    return { ref, sessionId, point, access, shell: (line, env) => this.#shell(ref, line, env) };
  }

  /** Writes a sandbox down where the broker looks after a restart. */
  know(sandboxId: string, sessionId: string, point: EgressPoint | null): void {
    this.#known.set(sandboxId, { sandboxId, sessionId, point });
    this.#writeKnown();
  }

  forget(sandboxId: string): void {
    this.#known.delete(sandboxId);
    this.#writeKnown();
  }

  #writeKnown(): void {
    writeFileSync(this.#file('directory.json'), JSON.stringify([...this.#known.values()]));
  }

  #shell(ref: SandboxRef, line: string, env: Record<string, string> = {}): Promise<Finished> {
    return shell(this.sandboxes.provider, ref, line, { env: { ...PROXY_ENV, ...env } });
  }

  async close(): Promise<void> {
    await this.killBroker();
    await this.sandboxes.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export interface EgressSandbox {
  ref: SandboxRef;
  sessionId: string;
  point: EgressPoint;
  access: EgressAccess;
  shell(line: string, env?: Record<string, string>): Promise<Finished>;
}

const PROXY = 'http://127.0.0.1:3128';
const TRUST = '/workspace/trust.pem';

/** What the product sets in every sandbox. */
export const PROXY_ENV = {
  HTTP_PROXY: PROXY,
  HTTPS_PROXY: PROXY,
  http_proxy: PROXY,
  https_proxy: PROXY,
  ALL_PROXY: PROXY,
  NO_PROXY: 'localhost,127.0.0.1,::1',
  no_proxy: 'localhost,127.0.0.1,::1',
  NODE_EXTRA_CA_CERTS: TRUST,
  SSL_CERT_FILE: TRUST,
  REQUESTS_CA_BUNDLE: TRUST,
  CURL_CA_BUNDLE: TRUST,
  GIT_SSL_CAINFO: TRUST,
  PATH: '/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin',
  HOME: '/workspace',
};

/** The process that holds a local sandbox's network, as its record says. */
function holderOf(rootDir: string, ref: SandboxRef): EgressPoint {
  const file = path.join(rootDir, ref.id, 'sandbox.json');
  if (!existsSync(file)) throw new Error(`no record of ${ref.id}`);
  const { holder } = JSON.parse(readFileSync(file, 'utf8')) as { holder: { pid: number; startTime: string } };
  return { type: 'namespace', ...holder };
}
