import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { bareEnvironment } from '../config.ts';
import { hydratePostgres, requirePostgres } from './postgres-package.ts';
import { commandLineOf, endProcess, identify } from './processes.ts';
import { runAs, serviceAccount } from './service-account.ts';

/** Where one cluster lives and how to reach it. */
export interface Cluster {
  dataDir: string;
  password: string;
}

interface ClusterOptions {
  dataDir: string;
  /** File with the superuser's password, made on first use. */
  passwordFile: string;
  /** For throw-away clusters: do not wait for the disk. */
  unsafe?: boolean;
}

/** Opens the cluster in `dataDir`, making it first when there is none. */
export function openCluster(options: ClusterOptions): Cluster {
  const native = requirePostgres();
  hydratePostgres(native);
  const { dataDir, passwordFile } = options;
  if (existsSync(path.join(dataDir, 'longhaul-ready'))) {
    return { dataDir, password: readFileSync(passwordFile, 'utf8').trim() };
  }
  // A cluster without its mark is the rest of an interrupted initdb: nothing was ever stored in it.
  rmSync(dataDir, { recursive: true, force: true });
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const password = randomBytes(24).toString('base64url');
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  const account = serviceAccount();
  const handover = `${dataDir}.pw`;
  writeFileSync(handover, `${password}\n`, { mode: 0o600 });
  if (account !== null) {
    chownSync(dataDir, account.uid, account.gid);
    chownSync(handover, account.uid, account.gid);
  }
  const flags = ['--pgdata', dataDir, '--username=longhaul', '--auth=scram-sha-256', `--pwfile=${handover}`];
  // The built-in provider makes sorting the same on every machine, whatever locales it has.
  flags.push('--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8');
  if (options.unsafe === true) flags.push('--no-sync');
  const run = runAs(path.join(native, 'bin', 'initdb'), flags, [native, path.dirname(dataDir)], false);
  try {
    execFileSync(run.command, run.args, {
      ...run.options,
      cwd: '/',
      stdio: ['ignore', 'ignore', 'pipe'],
      env: bareEnvironment(),
    });
  } finally {
    rmSync(handover, { force: true });
  }
  writeFileSync(path.join(dataDir, 'longhaul-ready'), '');
  return { dataDir, password };
}

interface ServerOptions {
  dataDir: string;
  port: number;
  stdio: [stdin: 'ignore', stdout: number | 'ignore', stderr: number | 'ignore'];
  settings?: Record<string, string>;
  dieWithParent?: boolean;
  detached?: boolean;
}

/** Spawns the server process itself (no launcher stays between), so its pid is known. */
export function spawnPostgres(options: ServerOptions): ChildProcess {
  const native = requirePostgres();
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: '200',
    timezone: 'UTC',
    log_timezone: 'UTC',
    ...options.settings,
  };
  const args = ['-D', options.dataDir, '-p', String(options.port)];
  for (const [name, value] of Object.entries(settings)) args.push('-c', `${name}=${value}`);
  const folders = [native, path.dirname(options.dataDir)];
  const run = runAs(path.join(native, 'bin', 'postgres'), args, folders, options.dieWithParent ?? false);
  return spawn(run.command, run.args, {
    ...run.options,
    cwd: '/',
    stdio: options.stdio,
    detached: options.detached ?? false,
    env: bareEnvironment(),
  });
}

/**
 * Clears what a killed server left in the way: an orphaned server of this very folder is ended, and a `postmaster.pid` whose
 * pid now belongs to a foreign process is removed (Postgres would take that process for a running server).
 */
export async function clearStaleServer(dataDir: string): Promise<void> {
  const file = path.join(dataDir, 'postmaster.pid');
  if (!existsSync(file)) return;
  const identity = identify(Number(readFileSync(file, 'utf8').split('\n')[0]));
  // With no such process Postgres itself does the right thing, and still sees backends that are about to end.
  if (identity === null) return;
  if (commandLineOf(identity.pid).includes(dataDir)) await endProcess(identity, 'SIGINT', 10_000);
  else rmSync(file, { force: true });
}

/** Connection string of one database of the cluster. */
export function postgresUrl(cluster: Cluster, port: number, database: string): string {
  return `postgresql://longhaul:${cluster.password}@127.0.0.1:${port}/${database}`;
}

/** True when the server takes a login and answers a query. */
export async function isPostgresReady(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return true;
  } finally {
    await client.end().catch(() => undefined);
  }
}
