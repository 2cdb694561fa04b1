import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { inheritedEnvironment } from '../../cli/config.ts';
import { anyFreePort } from '../../cli/stack/ports.ts';
import { isPostgresReady, openCluster, postgresUrl, spawnPostgres } from '../../cli/stack/postgres.ts';
import { waitUntil } from '../../cli/stack/wait.ts';
import { createDatabase } from '../../db/databases.ts';
import { migrate } from '../../db/migrate.ts';
import { createPool, type Pool } from '../../db/pool.ts';
import { insertBudget } from '../../db/queries/budgets.ts';
import { mintVirtualKey } from '../../db/queries/virtual-keys.ts';

/** A gateway, its Postgres and a provider double, each in a process of its own. */
export interface World {
  upstreamUrl: string;
  gatewayUrl: string;
  gatewayPid: number;
  key: string;
  pool: Pool;
  close(): Promise<void>;
}

const TEAM = { teamId: 'bench', userId: 'bench' };
const FOREIGN = /^(DATABASE_URL$|LONGHAUL_|OTEL_|ANTHROPIC_|OPENAI_)/;

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

async function startUpstream(): Promise<{ child: ChildProcess; url: string }> {
  const child = fork(fileURLToPath(new URL('./upstream.js', import.meta.url)));
  const [message] = (await once(child, 'message')) as [{ port: number }];
  return { child, url: `http://127.0.0.1:${message.port}` };
}

async function startPostgres(folder: string): Promise<{ child: ChildProcess; url: string }> {
  const cluster = openCluster({
    dataDir: path.join(folder, 'postgres'),
    passwordFile: path.join(folder, 'postgres-password'),
  });
  const port = await anyFreePort();
  const log = openSync(path.join(folder, 'postgres.log'), 'a');
  const stdio: ['ignore', number, number] = ['ignore', log, log];
  const child = spawnPostgres({ dataDir: cluster.dataDir, port, stdio, dieWithParent: true });
  closeSync(log);
  const admin = postgresUrl(cluster, port, 'postgres');
  await waitUntil(() => isPostgresReady(admin), { what: 'Postgres for the bench', timeoutMs: 60_000 });
  await createDatabase(admin, 'longhaul');
  const url = postgresUrl(cluster, port, 'longhaul');
  await migrate(url);
  return { child, url };
}

async function startGateway(
  folder: string,
  env: Record<string, string>,
  profileDir: string | undefined,
): Promise<{ child: ChildProcess; url: string }> {
  const port = await anyFreePort();
  const log = openSync(path.join(folder, 'gateway.log'), 'a');
  const inherited = Object.entries(inheritedEnvironment()).filter(([name]) => !FOREIGN.test(name));
  const child = fork(fileURLToPath(new URL('../../gateway/main.js', import.meta.url)), [], {
    env: { ...Object.fromEntries(inherited), LONGHAUL_GATEWAY_PORT: String(port), ...env },
    stdio: ['ignore', log, log, 'ipc'],
    execArgv: profileDir === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', profileDir],
  });
  closeSync(log);
  const url = `http://127.0.0.1:${port}`;
  await waitUntil(async () => (await fetch(`${url}/readyz`).catch(() => undefined))?.ok === true, {
    what: 'the gateway',
    timeoutMs: 30_000,
    check: () => {
      if (child.exitCode === null) return;
      throw new Error(`the gateway ended:\n${readFileSync(path.join(folder, 'gateway.log'), 'utf8').slice(-2_000)}`);
    },
  });
  return { child, url };
}

/** Every call is paid from three pools with hard limits that are never reached. */
async function makePools(pool: Pool): Promise<void> {
  const scopes = [
    ['org', '*', 'month'],
    ['team', TEAM.teamId, 'day'],
    ['user', TEAM.userId, 'total'],
  ] as const;
  for (const [scopeKind, scopeId, period] of scopes) {
    await insertBudget(pool, {
      name: scopeKind,
      teamId: TEAM.teamId,
      scopeKind,
      scopeId,
      period,
      hardLimitMicros: 1e12,
      softLimitMicros: null,
      thresholds: [50, 80, 100],
      degradeTo: null,
      degradeAtPercent: null,
      createdBy: TEAM.userId,
    });
  }
}

/** Starts all of it with budgets, ledger and tracing on; with `profileDir` the gateway leaves a CPU profile there. */
export async function openWorld(profileDir?: string): Promise<World> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-bench-'));
  const running: [ChildProcess, NodeJS.Signals][] = [];
  let pool: Pool | undefined;
  const close = async (): Promise<void> => {
    await pool?.end();
    for (const [child, signal] of running.toReversed()) await end(child, signal);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const postgres = await startPostgres(folder);
    running.push([postgres.child, 'SIGINT']);
    const upstream = await startUpstream();
    running.push([upstream.child, 'SIGKILL']);
    pool = createPool({ databaseUrl: postgres.url, applicationName: 'bench' });
    await makePools(pool);
    const { key } = await mintVirtualKey(pool, { ...TEAM, maxParallel: 1_000 });
    const env = {
      DATABASE_URL: postgres.url,
      ANTHROPIC_BASE_URL: upstream.url,
      ANTHROPIC_API_KEY: 'sk-bench',
      OTEL_EXPORTER_OTLP_ENDPOINT: upstream.url,
      LONGHAUL_LOG_LEVEL: 'warn',
    };
    const gateway = await startGateway(folder, env, profileDir);
    running.push([gateway.child, 'SIGTERM']);
    const gatewayPid = gateway.child.pid ?? 0;
    return { upstreamUrl: upstream.url, gatewayUrl: gateway.url, gatewayPid, key, pool, close };
  } catch (error) {
    await close();
    throw error;
  }
}
