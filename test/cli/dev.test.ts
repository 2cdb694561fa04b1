import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import pg from 'pg';
import { afterEach, beforeAll, afterAll, describe, expect, it } from 'vitest';
import { createHash } from 'node:crypto';
import {
  eventually,
  isRunning,
  makeHome,
  readDevJson,
  runCli,
  spawnCli,
  startStack,
  type DevJson,
  type TestStack,
} from '../support/stack.ts';

function roles(pids: DevJson['pids']): number[] {
  return Object.values(pids).filter((pid) => pid !== null);
}

async function query(databaseUrl: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

describe('a running stack', () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await startStack();
  });
  afterAll(() => stack.stop());

  it('publishes dev.json for its owner only', () => {
    const file = path.join(stack.home, 'dev.json');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(Object.keys(stack.devJson).toSorted()).toEqual(
      [
        'apiKey',
        'apiUrl',
        'databaseUrl',
        'egressUrl',
        'gatewayUrl',
        'pids',
        'temporalAddress',
        'temporalNamespace',
        'temporalUiUrl',
      ].toSorted(),
    );
    expect(stack.devJson.pids.gateway).toBe(stack.devJson.pids.api);
    expect(roles(stack.devJson.pids).every(isRunning)).toBe(true);
    expect(new URL(stack.devJson.apiUrl).hostname).toBe('127.0.0.1');
  });

  it('keeps the clear key in private files and only its hash in the database', async () => {
    const file = path.join(stack.home, 'api-key');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file, 'utf8').trim()).toBe(stack.key);
    expect(stack.key).toMatch(/^lhk_[A-Za-z0-9_-]{43}$/);
    const rows = await query(
      stack.devJson.databaseUrl,
      'SELECT name, user_id, team_id, prefix, key_hash FROM api_keys',
    );
    expect(rows).toEqual([
      {
        name: 'dev',
        user_id: 'dev',
        team_id: 'default',
        prefix: stack.key.slice(0, 12),
        key_hash: createHash('sha256').update(stack.key).digest(),
      },
    ]);
  });

  it('serves the Temporal UI', async () => {
    const response = await fetch(stack.devJson.temporalUiUrl ?? '');
    expect(response.status).toBe(200);
  });

  it('points a second start at the one that runs', async () => {
    const again = await runCli(['dev', '--detach'], stack.home);
    expect(again.code).toBe(0);
    expect(again.stderr).toContain('already runs');
    expect(again.stderr).toContain(stack.url);
    expect(stack.pids()).toEqual(readDevJson(stack.home)?.pids);
  });

  it('reports its state', async () => {
    const { code, stdout } = await runCli(['status', '--json'], stack.home);
    expect(code).toBe(0);
    const status = JSON.parse(stdout) as { state: string; apiUrl: string };
    expect(status).toMatchObject({ state: 'running', apiReady: true, apiUrl: stack.url });
    expect(stdout).not.toContain(stack.key);
  });

  it.each(['worker', 'api', 'egress', 'temporal', 'postgres'] as const)('restarts a killed %s', async (role) => {
    const before = stack.pids();
    await stack.killAndRecover(role);
    const after = stack.pids();
    expect(after[role]).not.toBe(before[role]);
    expect(isRunning(before[role] ?? 0)).toBe(false);
    const untouched = (['supervisor', 'worker', 'api', 'egress', 'temporal', 'postgres'] as const).filter(
      (name) => name !== role,
    );
    for (const name of untouched) expect(after[name]).toBe(before[name]);
    await eventually('status is well again', async () => (await runCli(['status'], stack.home)).code === 0);
    expect(await query(stack.devJson.databaseUrl, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('runs beside a stack of another home', async () => {
    const other = await startStack();
    try {
      expect(other.url).not.toBe(stack.url);
      expect(other.devJson.temporalAddress).not.toBe(stack.devJson.temporalAddress);
      expect(other.key).not.toBe(stack.key);
      await Promise.all([other.waitReady(), stack.waitReady()]);
    } finally {
      await other.stop();
    }
    await stack.waitReady();
    expect(roles(stack.pids()).every(isRunning)).toBe(true);
  });
});

describe('the life of a stack', () => {
  const homes: string[] = [];
  const home = (): string => {
    const made = makeHome();
    homes.push(made);
    return made;
  };
  afterEach(async () => {
    for (const made of homes.splice(0)) {
      await runCli(['stop'], made);
      rmSync(made, { recursive: true, force: true });
    }
  });

  it('stops without a trace and starts again with its data and ports', async () => {
    const folder = home();
    const first = await startStack({ home: folder });
    await query(first.devJson.databaseUrl, 'CREATE TABLE kept AS SELECT 42 AS answer');
    const pids = roles(first.pids());
    expect((await runCli(['stop'], folder)).code).toBe(0);
    expect(pids.filter(isRunning)).toEqual([]);
    expect(existsSync(path.join(folder, 'dev.json'))).toBe(false);

    const second = await startStack({ home: folder });
    expect({ ...second.devJson, pids: null }).toEqual({ ...first.devJson, pids: null });
    expect(await query(second.devJson.databaseUrl, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
  });

  it('ends with exit code 0 when there is nothing to stop, as often as asked', async () => {
    const folder = home();
    for (let round = 0; round < 2; round += 1) {
      const result = await runCli(['stop'], folder);
      expect(result).toMatchObject({ code: 0, stdout: '' });
      expect(result.stderr).toContain('Nothing runs');
    }
  });

  it('leaves no orphan when its supervisor was killed and it starts again', async () => {
    const folder = home();
    const first = await startStack({ home: folder });
    const before = roles(first.pids());
    process.kill(first.pids().supervisor ?? 0, 'SIGKILL');
    await eventually('the supervisor is gone', () => !isRunning(before[0] ?? 0));
    const second = await startStack({ home: folder });
    await second.waitReady();
    await eventually('all of before are gone', () => !before.some(isRunning));
    expect(second.key).toBe(first.key);
  });

  it('stops what a killed supervisor left', async () => {
    const folder = home();
    const stack = await startStack({ home: folder });
    const before = roles(stack.pids());
    process.kill(stack.pids().supervisor ?? 0, 'SIGKILL');
    await eventually('the supervisor is gone', () => !isRunning(before[0] ?? 0));
    expect((await runCli(['status'], folder)).stdout).toContain('orphaned');
    expect((await runCli(['stop'], folder)).code).toBe(0);
    await eventually('all are gone', () => !before.some(isRunning));
    expect(existsSync(path.join(folder, 'dev.json'))).toBe(false);
  });

  it('ends a foreground stack on SIGINT, with talk on stderr and nothing on stdout', async () => {
    const folder = home();
    const child = spawnCli(['dev'], folder);
    let stdout = '';
    let stderr = '';
    child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString('utf8')));
    child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
    await eventually('it is ready', () => stderr.includes('longhaul stop'), 60_000);
    const pids = roles(readDevJson(folder)!.pids);
    expect(pids).toContain(child.pid);
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    child.kill('SIGINT');
    expect(await ended).toBe(0);
    expect(stdout).toBe('');
    expect(pids.filter(isRunning)).toEqual([]);
    expect(existsSync(path.join(folder, 'dev.json'))).toBe(false);
  });

  it('ends everything when it is interrupted while it starts', async () => {
    const folder = home();
    const child = spawnCli(['dev'], folder);
    await eventually('a first server runs', () => existsSync(path.join(folder, 'stack.json')), 60_000);
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    child.kill('SIGTERM');
    expect(await ended).toBe(130);
    expect((await runCli(['status'], folder)).stdout).toContain('stopped');
  });

  it('refuses a taken port that was asked for, and takes the next one otherwise', async () => {
    const blocker = net.createServer().listen({ host: '127.0.0.1', port: 0 });
    await new Promise((resolve) => blocker.once('listening', resolve));
    const { port } = blocker.address() as net.AddressInfo;
    try {
      const folder = home();
      const result = await runCli(['dev', '--detach', '--port', String(port)], folder);
      expect(result.code).toBe(1);
      expect(result.stderr).toContain(`Port ${port} is taken`);
      expect((await runCli(['status'], folder)).stdout).toContain('stopped');
    } finally {
      blocker.close();
    }
  });

  it('uses a Postgres and a Temporal server that exist already', async () => {
    const foreign = await startStack({ home: home() });
    const stack = await startStack({
      home: home(),
      env: { DATABASE_URL: foreign.devJson.databaseUrl, TEMPORAL_ADDRESS: foreign.devJson.temporalAddress },
    });
    expect(stack.devJson).toMatchObject({
      databaseUrl: foreign.devJson.databaseUrl,
      temporalAddress: foreign.devJson.temporalAddress,
      pids: { postgres: null, temporal: null },
    });
    await runCli(['stop'], stack.home);
    await foreign.waitReady();
  });
});
