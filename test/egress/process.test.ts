import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { anyFreePort } from '../../cli/stack/ports.ts';
import { testDatabase } from '../support/postgres.ts';

/** The built broker as a process of its own, as production starts it. */
const MAIN = fileURLToPath(new URL('../../dist/egress/main.js', import.meta.url));
const VAULT_KEY = randomBytes(32).toString('base64');
const TOKEN = randomBytes(24).toString('hex');
const running: ChildProcess[] = [];
let database: Awaited<ReturnType<typeof testDatabase>>;
let home: string;

beforeAll(async () => {
  database = await testDatabase();
  home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-broker-'));
});
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});
afterAll(async () => {
  await database.drop();
  rmSync(home, { recursive: true, force: true });
});

async function start(env: Record<string, string>): Promise<{ child: ChildProcess; url: string; output: () => string }> {
  const port = env['LONGHAUL_EGRESS_PORT'] ?? String(await anyFreePort());
  const child = spawn(process.execPath, [MAIN], {
    env: {
      PATH: process.env['PATH'],
      DATABASE_URL: database.url,
      LONGHAUL_HOME: home,
      LONGHAUL_EGRESS_PORT: port,
      LONGHAUL_EGRESS_TOKEN: TOKEN,
      LONGHAUL_PORTS_LISTEN: `127.0.0.1:${await anyFreePort()}`,
      LONGHAUL_VAULT_KEY: VAULT_KEY,
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.push(child);
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return { child, url: `http://127.0.0.1:${port}`, output: () => output };
}

it.each([
  ['a master key', { LONGHAUL_VAULT_KEY: '' }, 'there is no master key for the vault'],
  ['a whole master key', { LONGHAUL_VAULT_KEY: 'c2hvcnQ-this-is-no-key' }, 'is not 32 bytes'],
  ['a token', { LONGHAUL_EGRESS_TOKEN: '' }, 'LONGHAUL_EGRESS_TOKEN'],
  ['a long token', { LONGHAUL_EGRESS_TOKEN: 'a-short-token' }, 'at least 32 characters'],
  ['a loopback address', { LONGHAUL_EGRESS_HOST: '0.0.0.0' }, 'refusing to bind 0.0.0.0'],
  ['a loopback address of open ports', { LONGHAUL_PORTS_LISTEN: '0.0.0.0:0' }, 'refusing to serve ports'],
])('does not start without %s, and does not tell what it was given', async (_name, env, says) => {
  const { child, output } = await start(env);
  const [code] = (await once(child, 'close')) as [number];
  expect(code, output()).toBe(1);
  expect(output()).toContain(says);
  for (const secret of [VAULT_KEY, TOKEN, 'c2hvcnQ-this-is-no-key', 'a-short-token']) {
    expect(output()).not.toContain(secret);
  }
});

it('does not stay when its port is taken', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { child, output } = await start({ LONGHAUL_EGRESS_PORT: String((other.address() as AddressInfo).port) });
  const [code] = (await once(child, 'close')) as [number];
  other.close();
  expect(code, output()).toBe(1);
  expect(output()).toContain('EADDRINUSE');
});

it('keeps its key apart from the trust bundle, asks for its token, and stops on SIGTERM', async () => {
  const shared = path.join(home, 'shared', 'bundle.pem');
  const own = path.join(home, 'apart');
  const { child, url, output } = await start({ LONGHAUL_HOME: own, LONGHAUL_EGRESS_TRUST_BUNDLE: shared });
  const status = (target: string, headers: Record<string, string> = {}): Promise<number> =>
    fetch(`${url}${target}`, { headers }).then(
      (response) => response.status,
      () => 0,
    );
  await expect.poll(() => status('/healthz'), { timeout: 60_000 }).toBe(200);
  expect(await status('/metrics')).toBe(401);
  expect(await status('/metrics', { authorization: `Bearer ${TOKEN}` })).toBe(200);
  expect(statSync(shared).mode & 0o777).toBe(0o644);
  const authority = path.join(own, 'egress', 'authority.pem');
  expect(statSync(authority).mode & 0o777).toBe(0o600);
  expect(existsSync(path.join(own, 'egress', 'trust-bundle.pem'))).toBe(false);
  child.kill('SIGTERM');
  const [code] = (await once(child, 'close')) as [number];
  expect(code, output()).toBe(0);
  expect(output()).not.toContain(TOKEN);
});
