import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { Logger } from '../../../telemetry/logger.ts';
import { within } from '../../../contracts/abort.ts';
import { isAlive } from '../../sandbox/local/host.ts';
import { withLock } from '../../sandbox/local/lock.ts';
import { KEEPER } from './keeper.ts';
import {
  endProcess,
  readRecord,
  recordFile,
  removeRecord,
  runFolder,
  writeRecord,
  type ServerRecord,
} from './registry.ts';

/** What drivers get to run servers with. */
export interface HarnessHost {
  /** The harness folder of the home. */
  root: string;
  /** A server that nobody used for so long ends. */
  idleMs: number;
  /** One that ran and does not answer for so long is ended and started anew. */
  sickMs: number;
  logger: Logger;
}

/** Where a server is and how to prove that we may ask it. */
export interface ServerAddress {
  endpoint: string;
  secret: string;
}

/** A server of a harness; there is one of a name in a home. */
export interface ServerSpec {
  name: string;
  binary: string;
  args: (port: number) => string[];
  /** All it gets besides HOME, PATH and LC_ALL. `folder` is its own, and its HOME. */
  env: (at: { port: number; secret: string; folder: string }) => Record<string, string>;
  endpoint: (port: number) => string;
  /** Throws, or gives false, while it does not answer. Must end with the signal. */
  isReady: (address: ServerAddress, signal: AbortSignal) => Promise<boolean>;
}

export interface RunningServer extends ServerAddress {
  pid: number;
  startTime: string;
}

/** On a busy machine these programs take long to come up. */
const START_TIMEOUT_MS = 180_000;
const PROBE_TIMEOUT_MS = 5_000;
const PROBE_EVERY_MS = 100;
const STARTS = 3;
const MAX_LOG_BYTES = 8 * 1024 * 1024;
const TOUCH_EVERY_MS = 20_000;
/** A worker in its event loop's grip should not lose its server. */
const TOUCHES_AN_IDLE_TIME = 4;

/** The file that holds a server's secret, for servers that read it from there. Only its owner can read it. */
export function secretFile(root: string, name: string): string {
  return path.join(runFolder(root), `${name}.secret`);
}

const filesOf = (host: HarnessHost, name: string): Record<'secret' | 'used' | 'log' | 'lock' | 'folder', string> => ({
  secret: secretFile(host.root, name),
  used: path.join(runFolder(host.root), `${name}.used`),
  log: path.join(runFolder(host.root), `${name}.log`),
  lock: path.join(runFolder(host.root), `${name}.lock`),
  folder: path.join(host.root, name),
});

/**
 * The running server of this name, found again or started. It outlives this process. Whoever asks at the same time, here
 * or in another worker of the home, gets the same one.
 */
export async function acquireServer(host: HarnessHost, spec: ServerSpec, signal: AbortSignal): Promise<RunningServer> {
  const files = filesOf(host, spec.name);
  for (const folder of [runFolder(host.root), files.folder]) mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileSync(files.used, '', { mode: 0o600 });
  const found = await findServer(host, spec, signal);
  if (found !== null) return found;
  const busy = (): LonghaulError =>
    new LonghaulError('harness_unavailable', `another worker starts the ${spec.name} server for too long`);
  const release = holdServer(host, spec.name);
  try {
    const options = { waitMs: START_TIMEOUT_MS * 2, everyMs: 100, busy };
    return await withLock(files.lock, () => findOrStart(host, spec, signal), options);
  } finally {
    release();
  }
}

/** While it is held a server is in use, however long nobody asks for it. Returns the end of that. */
export function holdServer(host: HarnessHost, name: string): () => void {
  const { used } = filesOf(host, name);
  const touch = (): void => {
    try {
      utimesSync(used, new Date(), new Date());
    } catch {
      // The home is gone, and with it the server.
    }
  };
  touch();
  const timer = setInterval(touch, Math.min(TOUCH_EVERY_MS, host.idleMs / TOUCHES_AN_IDLE_TIME));
  timer.unref();
  return () => clearInterval(timer);
}

/** The server, if it lives and answers at once. */
export async function findServer(
  host: HarnessHost,
  spec: ServerSpec,
  signal: AbortSignal,
): Promise<RunningServer | null> {
  const server = recorded(host, spec);
  return server !== null && (await answers(host, spec, server, signal)) ? server : null;
}

/** The lock is held. */
async function findOrStart(host: HarnessHost, spec: ServerSpec, signal: AbortSignal): Promise<RunningServer> {
  const record = readRecord<ServerRecord>(host.root, spec.name);
  const server = recorded(host, spec);
  if (server !== null && record !== undefined) {
    // It may have been spawned a moment ago by a worker that died.
    const bootMs = record.wasReady === true ? 0 : START_TIMEOUT_MS - (Date.now() - record.spawnedAtMs);
    if (await becomesReady(host, spec, server, Math.max(host.sickMs, bootMs), signal))
      return noteReady(host, server, record);
    host.logger.warn({ server: spec.name, pid: server.pid }, 'a harness server lives but does not answer: ending it');
  }
  if (record !== undefined) {
    await endProcess(record);
    removeRecord(host.root, spec.name);
  }
  for (let start = 1; ; start += 1) {
    const started = await startServer(host, spec, signal);
    if (started !== null) return started;
    const { log } = filesOf(host, spec.name);
    host.logger.warn({ server: spec.name, start, log }, 'a harness server did not start');
    if (start === STARTS) {
      throw new LonghaulError(
        'harness_unavailable',
        `the ${spec.name} server does not start; its log on the worker tells more`,
      );
    }
  }
}

function recorded(host: HarnessHost, spec: ServerSpec): RunningServer | null {
  const record = readRecord<ServerRecord>(host.root, spec.name);
  if (record === undefined || record.fingerprint !== fingerprintOf(spec) || !isAlive(record)) return null;
  try {
    const secret = readFileSync(filesOf(host, spec.name).secret, 'utf8');
    const { pid, startTime, port } = record;
    return { pid, startTime, endpoint: spec.endpoint(port), secret };
  } catch {
    return null;
  }
}

async function startServer(host: HarnessHost, spec: ServerSpec, signal: AbortSignal): Promise<RunningServer | null> {
  const files = filesOf(host, spec.name);
  const port = await freePort();
  const secret = randomBytes(24).toString('hex');
  writeFileSync(files.secret, secret, { mode: 0o600 });
  writeFileSync(files.used, '', { mode: 0o600 });
  await launch(host, spec, { port, secret });
  const server = recorded(host, spec);
  if (server === null || !(await becomesReady(host, spec, server, START_TIMEOUT_MS, signal))) {
    if (server !== null) await endProcess(server);
    removeRecord(host.root, spec.name);
    return null;
  }
  host.logger.info({ server: spec.name, pid: server.pid }, 'a harness server was started');
  const record = readRecord<ServerRecord>(host.root, spec.name);
  return record === undefined ? server : noteReady(host, server, record);
}

function noteReady(host: HarnessHost, server: RunningServer, record: ServerRecord): RunningServer {
  writeRecord(host.root, { ...record, wasReady: true });
  return server;
}

/** Resolves when the keeper has written the record, or has ended without. */
async function launch(host: HarnessHost, spec: ServerSpec, at: { port: number; secret: string }): Promise<void> {
  const { folder, used, log } = filesOf(host, spec.name);
  const template = JSON.stringify({
    name: spec.name,
    pid: '%PID%',
    startTime: '%START%',
    port: at.port,
    fingerprint: fingerprintOf(spec),
    spawnedAtMs: Date.now(),
  }).replace('"%PID%"', '%PID%');
  const idleSeconds = String(Math.max(1, Math.ceil(host.idleMs / 1_000)));
  const kept = [recordFile(host.root, spec.name), template, used, idleSeconds, log, String(MAX_LOG_BYTES)];
  const child = spawn('perl', ['-e', KEEPER, '--', ...kept, spec.binary, ...spec.args(at.port)], {
    cwd: folder,
    // Nothing of the worker's own environment: it holds what opens databases and vaults.
    env: {
      PATH: '/usr/local/bin:/usr/bin:/bin',
      LC_ALL: 'C.UTF-8',
      HOME: folder,
      ...spec.env({ ...at, folder }),
    },
    stdio: ['ignore', 'pipe', 'ignore'],
    // A session of its own: it outlives us and the terminal.
    detached: true,
  });
  child.unref();
  await new Promise<void>((resolve, reject) => {
    child.once('error', (cause) =>
      reject(
        new LonghaulError('harness_unavailable', 'perl could not be started: install it (package perl-base)', {
          cause,
        }),
      ),
    );
    child.stdout.once('data', () => resolve());
    child.stdout.once('end', () => resolve());
  });
  child.stdout.destroy();
}

async function becomesReady(
  host: HarnessHost,
  spec: ServerSpec,
  server: RunningServer,
  waitMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const deadlineMs = Date.now() + waitMs;
  while (isAlive(server)) {
    if (await answers(host, spec, server, signal)) return true;
    if (Date.now() > deadlineMs) return false;
    await delay(PROBE_EVERY_MS, undefined, { signal });
  }
  return false;
}

async function answers(
  { sickMs }: HarnessHost,
  spec: ServerSpec,
  server: RunningServer,
  signal: AbortSignal,
): Promise<boolean> {
  const probeMs = Math.min(PROBE_TIMEOUT_MS, sickMs);
  signal.throwIfAborted();
  try {
    return await within(signal, probeMs, (until) => spec.isReady(server, until));
  } catch {
    return false;
  }
}

function fingerprintOf(spec: ServerSpec): string {
  return createHash('sha256')
    .update(JSON.stringify([spec.binary, spec.args(0)]))
    .digest('hex');
}

/** Free a moment ago: when somebody was faster the server ends, and the next start tries another. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise<void>((resolve) => void server.close(() => resolve()));
  if (address === null || typeof address === 'string') throw new LonghaulError('internal', 'no free port');
  return address.port;
}
