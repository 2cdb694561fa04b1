import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createPool, type Pool } from '../../db/pool.ts';
import { findApiKey } from '../../db/queries/api-keys.ts';
import { testDatabase } from '../support/postgres.ts';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
let database: Awaited<ReturnType<typeof testDatabase>>;
let pool: Pool;

beforeAll(async () => {
  database = await testDatabase();
  pool = createPool({ databaseUrl: database.url, applicationName: 'test-cli' });
});
afterAll(async () => {
  await pool.end();
  await database.drop();
});

async function keys(...args: string[]): Promise<string> {
  const env = { PATH: process.env['PATH'], DATABASE_URL: database.url };
  return (await promisify(execFile)(process.execPath, [MAIN, 'keys', ...args], { env })).stdout.trim();
}

it('makes, lists and revokes keys with limits', async () => {
  const limits = ['--models', 'claude-*, scripted', '--parallel', '2', '--budget', '500', '--expires-in', '30'];
  const key = await keys('create', 'ci', '--user', 'ci', '--team', 'platform', '--gateway-only', ...limits);
  const found = await findApiKey(pool, key);
  expect(found).toMatchObject({
    userId: 'ci',
    teamId: 'platform',
    scopes: ['gateway'],
    allowedModels: ['claude-*', 'scripted'],
    maxParallel: 2,
    isLimited: true,
  });
  const listed = JSON.parse(await keys('list', '--team', 'platform', '--json')) as object[];
  expect(listed).toMatchObject([{ id: found?.id, name: 'ci', budgetMicros: 5_000_000, spentMicros: 0 }]);
  expect(JSON.stringify(listed)).not.toContain(key);
  const id = found?.id ?? '';
  expect(await keys('list', '--team', 'platform')).toContain(`${id}\tlive\t`);
  await expect(keys('revoke', id, '--team', 'other')).rejects.toMatchObject({ code: 1 });
  await keys('revoke', id, '--team', 'platform');
  expect(await findApiKey(pool, key)).toBeUndefined();
  expect(await keys('list', '--team', 'platform')).toBe('');
  expect(await keys('list', '--team', 'platform', '--all')).toContain(`${id}\trevoked\t`);
}, 120_000);
