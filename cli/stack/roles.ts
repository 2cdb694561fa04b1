import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { LogFile } from './logs.ts';
import { clearStaleServer, isPostgresReady, spawnPostgres, type Cluster, postgresUrl } from './postgres.ts';
import { handOver, KEYS_FD } from './provider-keys.ts';
import type { SupervisedOptions } from './supervised.ts';
import { isTemporalReady, spawnTemporal } from './temporal-server.ts';
import { waitUntil } from './wait.ts';

const START_TIMEOUT_MS = 90_000;

type RoleOptions = Omit<SupervisedOptions, 'onSpawn' | 'say'>;

/** Runs `make` with the log opened for the child; the child keeps its own copy of the descriptor. */
function withLog(log: LogFile, make: (fd: number) => ChildProcess): ChildProcess {
  const fd = log.open();
  try {
    return make(fd);
  } finally {
    closeSync(fd);
  }
}

/** The embedded Postgres. */
export function postgresRole(log: LogFile, cluster: Cluster, port: number): RoleOptions {
  const { dataDir } = cluster;
  return {
    role: 'postgres',
    log,
    prepare: () => clearStaleServer(dataDir),
    spawn: () => withLog(log, (fd) => spawnPostgres({ dataDir, port, stdio: ['ignore', fd, fd], detached: true })),
    waitReady: (_child, check) =>
      waitUntil(() => isPostgresReady(postgresUrl(cluster, port, 'postgres')), {
        what: 'Postgres',
        timeoutMs: START_TIMEOUT_MS,
        check,
      }),
    // Fast shutdown: ends the sessions, writes a checkpoint.
    stopSignal: 'SIGINT',
    graceMs: 15_000,
  };
}

interface TemporalRoleOptions {
  log: LogFile;
  binary: string;
  port: number;
  uiPort: number;
  namespace: string;
  databaseFile: string;
  home: string;
}

/** The Temporal dev server. */
export function temporalRole(options: TemporalRoleOptions): RoleOptions {
  const { log, port, namespace } = options;
  return {
    role: 'temporal',
    log,
    spawn: () => withLog(log, (fd) => spawnTemporal({ ...options, stdio: ['ignore', fd, fd], detached: true })),
    waitReady: (_child, check) =>
      waitUntil(() => isTemporalReady({ address: `127.0.0.1:${port}` }, namespace), {
        what: 'Temporal',
        timeoutMs: START_TIMEOUT_MS,
        check,
      }),
    stopSignal: 'SIGTERM',
    graceMs: 10_000,
  };
}

/** Starts one of our own processes from the compiled output. */
function spawnOwn(
  entry: string,
  log: LogFile,
  env: NodeJS.ProcessEnv,
  keys?: Readonly<Record<string, string>>,
): ChildProcess {
  const file = fileURLToPath(new URL(`../../${entry}`, import.meta.url));
  const child = withLog(log, (fd) =>
    spawn(process.execPath, ['--enable-source-maps', file], {
      stdio: ['ignore', fd, fd, 'ipc', ...(keys === undefined ? [] : ['pipe' as const])],
      // A group of its own: Ctrl-C reaches the supervisor only, which then ends everybody in order.
      detached: true,
      env: keys === undefined ? env : { ...env, LONGHAUL_CREDENTIALS_FD: String(KEYS_FD) },
    }),
  );
  if (keys !== undefined) handOver(child, keys);
  return child;
}

interface ApiRoleOptions {
  log: LogFile;
  apiUrl: string;
  env: NodeJS.ProcessEnv;
  /** The providers' keys; they are in nobody's environment. */
  keys: Readonly<Record<string, string>>;
}

/** The api process, which serves the gateway on the same port. */
export function apiRole({ log, apiUrl, env, keys }: ApiRoleOptions): RoleOptions {
  return {
    role: 'api',
    log,
    spawn: () => spawnOwn('api/main.js', log, env, keys),
    waitReady: (_child, check) =>
      waitUntil(async () => (await fetch(`${apiUrl}/readyz`, { signal: AbortSignal.timeout(2_000) })).status === 200, {
        what: 'The api',
        timeoutMs: START_TIMEOUT_MS,
        check,
      }),
    stopSignal: 'SIGTERM',
    graceMs: 15_000,
  };
}

/** The egress broker: the only way out of a sandbox. `keys` hold the vault's master key. */
export function egressRole(
  log: LogFile,
  egressUrl: string,
  env: NodeJS.ProcessEnv,
  keys: Readonly<Record<string, string>>,
): RoleOptions {
  return {
    role: 'egress',
    log,
    spawn: () => spawnOwn('egress/main.js', log, env, keys),
    waitReady: (_child, check) =>
      waitUntil(async () => (await fetch(`${egressUrl}/healthz`, { signal: AbortSignal.timeout(2_000) })).ok, {
        what: 'The egress broker',
        timeoutMs: START_TIMEOUT_MS,
        check,
      }),
    stopSignal: 'SIGTERM',
    graceMs: 10_000,
  };
}

/** The worker process. */
export function workerRole(log: LogFile, env: NodeJS.ProcessEnv): RoleOptions {
  let offset = 0;
  return {
    role: 'worker',
    log,
    spawn: () => {
      offset = log.sizeBytes();
      return spawnOwn('worker/main.js', log, env);
    },
    waitReady: async (child, check) => {
      let announced = false;
      child.on('message', (message) => {
        if (typeof message === 'object' && 'type' in message && message.type === 'ready') announced = true;
      });
      await waitUntil(() => Promise.resolve(announced || log.read(offset).includes('"msg":"worker ready"')), {
        what: 'The worker',
        timeoutMs: START_TIMEOUT_MS,
        check,
      });
    },
    stopSignal: 'SIGTERM',
    // Longer than the worker's own grace for running activities.
    graceMs: 40_000,
  };
}
