import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';
import { createPool } from '../../db/pool.ts';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { testDatabase } from '../support/postgres.ts';

/** The built api as a process of its own. */
const MAIN = fileURLToPath(new URL('../../dist/api/main.js', import.meta.url));
const VAULT_KEY = randomBytes(32).toString('base64');
const running: ChildProcess[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function start(env: Record<string, string>): { child: ChildProcess; output: () => string } {
  const child = spawn(process.execPath, [MAIN], {
    env: { PATH: process.env['PATH'], LONGHAUL_LOG_LEVEL: 'info', LONGHAUL_VAULT_KEY: VAULT_KEY, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.push(child);
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return { child, output: () => output };
}

it('starts and answers while Temporal is away, says so, and stops on SIGTERM with a stream open', async () => {
  const database = await testDatabase();
  const port = await freePort();
  const { child, output } = start({
    DATABASE_URL: database.url,
    TEMPORAL_ADDRESS: '127.0.0.1:1',
    LONGHAUL_API_PORT: String(port),
  });
  const url = `http://127.0.0.1:${port}`;
  await expect
    .poll(
      () =>
        fetch(`${url}/healthz`).then(
          (r) => r.status,
          () => 0,
        ),
      { timeout: 60_000 },
    )
    .toBe(200);
  const ready = await fetch(`${url}/readyz`);
  expect(ready.status).toBe(503);
  expect(await ready.json()).toEqual({ status: 'not_ready', checks: { database: 'ok', temporal: 'unavailable' } });
  expect((await fetch(`${url}/docs`)).headers.get('content-type')).toContain('text/html');
  expect(await (await fetch(`${url}/docs/errors`)).text()).toContain('id="session_terminated"');
  expect((await fetch(`${url}/metrics`)).status).toBe(401);

  const pool = createPool({ databaseUrl: database.url, applicationName: 'test' });
  const { key } = await createApiKey(pool, { name: 'k', userId: 'u', teamId: 't' });
  await pool.end();
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const post = async (path: string, body: object) =>
    (await (await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })).json()) as {
      id: string;
    };
  expect(await (await fetch(`${url}/metrics`, { headers })).text()).toContain('longhaul_api_request_seconds_count');
  const agent = await post('/v1/agents', { name: 'a', model: 'scripted' });
  const environment = await post('/v1/environments', { name: 'e' });
  const session = await post('/v1/sessions', { agent: agent.id, environment_id: environment.id });
  const stream = await fetch(`${url}/v1/sessions/${session.id}/events/stream`, { headers });
  const ended = stream.text();
  child.kill('SIGTERM');
  await once(child, 'exit');
  expect(child.exitCode, output()).toBe(0);
  expect(await ended).toContain('event: ping');
  expect(output()).not.toContain(key);
  await database.drop();
});

it('answers 503, not worse, while Postgres is away', async () => {
  const port = await freePort();
  const { child, output } = start({
    DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none',
    LONGHAUL_API_PORT: String(port),
  });
  const url = `http://127.0.0.1:${port}`;
  await expect
    .poll(
      () =>
        fetch(`${url}/healthz`).then(
          (r) => r.status,
          () => 0,
        ),
      { timeout: 60_000 },
    )
    .toBe(200);
  const refused = await fetch(`${url}/v1/agents`, { headers: { 'x-api-key': 'lhk_x' } });
  expect(refused.status).toBe(503);
  expect(((await refused.json()) as { error: { code: string } }).error.code).toBe('database_unavailable');
  child.kill('SIGTERM');
  await once(child, 'exit');
  expect(child.exitCode, output()).toBe(0);
});

it('does not listen to other machines unless told twice', async () => {
  const database = await testDatabase();
  const env = { DATABASE_URL: database.url, LONGHAUL_API_HOST: '0.0.0.0', LONGHAUL_API_PORT: '0' };
  for (const extra of [{}, { LONGHAUL_ALLOW_PUBLIC: '1' }]) {
    const { child, output } = start({ ...env, ...extra });
    await once(child, 'exit');
    expect(child.exitCode).toBe(1);
    expect(output()).toContain('can be reached by other machines');
  }
  const pool = createPool({ databaseUrl: database.url, applicationName: 'test' });
  await createApiKey(pool, { name: 'k', userId: 'u', teamId: 't' });
  await pool.end();
  const { child, output } = start({ ...env, LONGHAUL_ALLOW_PUBLIC: '1' });
  await expect.poll(output, { timeout: 60_000 }).toContain('api listens');
  child.kill('SIGTERM');
  await once(child, 'exit');
  await database.drop();
});

it('does not start without a master key for the vault, and does not tell what a wrong one was', async () => {
  for (const [key, says] of [
    ['', 'there is no master key for the vault'],
    ['c2hvcnQ-this-is-no-key', 'is not 32 bytes'],
  ] as const) {
    const { child, output } = start({ DATABASE_URL: 'postgresql://127.0.0.1:1/none', LONGHAUL_VAULT_KEY: key });
    const [code] = (await once(child, 'exit')) as [number];
    expect(code).toBe(1);
    expect(output()).toContain(says);
    if (key !== '') expect(output()).not.toContain(key);
  }
}, 60_000);
