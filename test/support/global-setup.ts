import type { ChildProcess } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createDatabase } from '../../db/databases.ts';
import { migrate } from '../../db/migrate.ts';
import { readConfig } from '../../cli/config.ts';
import { anyFreePort } from '../../cli/stack/ports.ts';
import { isPostgresReady, openCluster, postgresUrl, spawnPostgres } from '../../cli/stack/postgres.ts';
import { requireTemporal } from '../../cli/stack/temporal-binary.ts';
import { isTemporalReady, spawnTemporal } from '../../cli/stack/temporal-server.ts';
import { waitUntil } from '../../cli/stack/wait.ts';
import { TEMPLATE_DATABASE } from './postgres.ts';

function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once('exit', () => resolve());
  });
}

function checkLives(child: ChildProcess, name: string, logFile: string): () => void {
  return () => {
    if (child.exitCode === null && child.signalCode === null) return;
    throw new Error(`${name} ended while starting:\n${readFileSync(logFile, 'utf8').slice(-2_000)}`);
  };
}

async function startPostgres(folder: string): Promise<ChildProcess> {
  const cluster = openCluster({
    dataDir: path.join(folder, 'postgres'),
    passwordFile: path.join(folder, 'postgres-password'),
    unsafe: true,
  });
  const port = await anyFreePort();
  const logFile = path.join(folder, 'postgres.log');
  const log = openSync(logFile, 'a');
  const child = spawnPostgres({
    dataDir: cluster.dataDir,
    port,
    stdio: ['ignore', log, log],
    settings: { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off', max_connections: '400' },
    dieWithParent: true,
  });
  closeSync(log);
  const url = postgresUrl(cluster, port, 'postgres');
  await waitUntil(() => isPostgresReady(url), {
    what: 'Postgres for the tests',
    timeoutMs: 60_000,
    check: checkLives(child, 'Postgres', logFile),
  });
  await createDatabase(url, TEMPLATE_DATABASE);
  await migrate(postgresUrl(cluster, port, TEMPLATE_DATABASE));
  process.env['LONGHAUL_TEST_DATABASE_URL'] = url;
  return child;
}

async function startTemporal(folder: string): Promise<ChildProcess> {
  const binary = await requireTemporal(readConfig());
  const port = await anyFreePort();
  const logFile = path.join(folder, 'temporal.log');
  const log = openSync(logFile, 'a');
  const child = spawnTemporal({
    binary: binary.path,
    port,
    uiPort: null,
    namespace: 'default',
    databaseFile: null,
    home: folder,
    stdio: ['ignore', log, log],
    dieWithParent: true,
  });
  closeSync(log);
  const address = `127.0.0.1:${port}`;
  await waitUntil(() => isTemporalReady({ address }, 'default'), {
    what: 'Temporal for the tests',
    timeoutMs: 60_000,
    check: checkLives(child, 'Temporal', logFile),
  });
  process.env['LONGHAUL_TEST_TEMPORAL_ADDRESS'] = address;
  return child;
}

/** One Postgres and one Temporal server for all test files; both die with this process, however it ends. */
export async function setup(): Promise<() => Promise<void>> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-test-'));
  const starting: Promise<ChildProcess>[] = [];
  if (process.env['LONGHAUL_TEST_DATABASE_URL'] === undefined) starting.push(startPostgres(folder));
  if (process.env['LONGHAUL_TEST_TEMPORAL_ADDRESS'] === undefined) starting.push(startTemporal(folder));
  const teardown = async (): Promise<void> => {
    const outcomes = await Promise.allSettled(starting);
    const children = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    for (const child of children) child.kill('SIGKILL');
    await Promise.all(children.map(ended));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await Promise.all(starting);
  } catch (error) {
    await teardown();
    throw error;
  }
  return teardown;
}
