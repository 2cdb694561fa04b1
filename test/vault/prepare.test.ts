import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { prepareCredentials } from '../../vault/prepare.ts';
import type { Pool } from '../../db/pool.ts';
import { withTransaction } from '../../db/pool.ts';
import { listSessionCredentials } from '../../db/queries/session-credentials.ts';
import { writeSessionEnd } from '../../db/queries/session-end.ts';
import { learnShape, mintPlaceholder, plainShape } from '../../vault/shape.ts';
import { canary, makeCredential, makeSession, makeVault, newRing, placeholdersOf, vaultDatabase } from './support.ts';

describe('a placeholder', () => {
  it.each([
    ['ghp_0123456789abcdefABCDEF0123456789abcd', /^ghp_[A-Za-z0-9]{36}$/],
    [`github_pat_${'1'.repeat(22)}_${'a'.repeat(59)}`, /^github_pat_[A-Za-z0-9]{82}$/],
    [`sk-ant-api03-${'x'.repeat(95)}`, /^sk-ant-api03-[A-Za-z0-9_-]{95}$/],
    ['xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy', /^xoxb-[A-Za-z0-9]+$/],
    ['glpat-1234567890abcdefghij', /^glpat-[A-Za-z0-9_-]{20,}$/],
    ['AKIAIOSFODNN7EXAMPLE', /^AKIA[A-Z2-7]{26}$/],
    ['eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJtZSJ9.c2ln', /^eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+$/],
    ['hunter2hunter2', /^[A-Za-z0-9]{40}$/],
  ])('of %s looks like it and is another one each time', (value, like) => {
    const made = Array.from({ length: 50 }, () => mintPlaceholder(learnShape(value)));
    for (const one of made) expect(one).toMatch(like);
    expect(new Set([...made, value]).size).toBe(51);
  });

  it('holds nothing of a value that nobody knows', () => {
    const shape = JSON.stringify(learnShape('corp-secret-7f3a'));
    for (const piece of ['corp', 'secret', '7f3a', '16']) expect(shape).not.toContain(piece);
    expect(mintPlaceholder(plainShape('ghp_'))).toMatch(/^ghp_[A-Za-z0-9]{36}$/);
  });
});

describe('the credentials of a session', () => {
  let pool: Pool;
  let close: () => Promise<void>;
  const ring = newRing();
  beforeAll(async () => {
    ({ pool, close } = await vaultDatabase());
  }, 120_000);
  afterAll(() => close());

  it('are minted once, however often and however many ask at once', async () => {
    const vaultId = await makeVault(pool);
    const value = canary('ghp_');
    await makeCredential(pool, ring, { vaultId, parts: { value }, spec: { env: 'GITHUB_TOKEN' } });
    await makeCredential(pool, ring, {
      vaultId,
      parts: { value: canary() },
      kind: 'ssh',
      name: 'h',
      spec: { env: null },
    });
    const sessionId = await makeSession(pool, [vaultId]);
    const all = await Promise.all(Array.from({ length: 5 }, () => prepareCredentials(pool, sessionId)));
    expect(all.reduce((sum, one) => sum + one.minted, 0)).toBe(1);
    const env = await placeholdersOf(pool, sessionId);
    expect(Object.keys(env)).toEqual(['GITHUB_TOKEN']);
    expect(env['GITHUB_TOKEN']).toMatch(/^ghp_[A-Za-z0-9]{39}$/);
    expect(JSON.stringify(await prepareCredentials(pool, sessionId))).toBe('{"count":1,"minted":0}');
    const other = await makeSession(pool, [vaultId]);
    await prepareCredentials(pool, other);
    expect((await placeholdersOf(pool, other))['GITHUB_TOKEN']).not.toBe(env['GITHUB_TOKEN']);
    const { rows } = await pool.query(
      `SELECT details FROM audit WHERE session_id = $1 AND action = 'credential.grant'`,
      [sessionId],
    );
    expect(rows).toMatchObject([{ details: { credentials: [{ name: 'GITHUB_TOKEN', version: 1 }] } }]);
    expect(JSON.stringify(rows)).not.toContain(env['GITHUB_TOKEN']);
  }, 60_000);

  it('of two for one variable the first vault wins', async () => {
    const [first, second] = [await makeVault(pool), await makeVault(pool)];
    const won = await makeCredential(pool, ring, { vaultId: first, parts: { value: 'one' } });
    await makeCredential(pool, ring, { vaultId: second, parts: { value: 'two' } });
    const sessionId = await makeSession(pool, [first, second]);
    await prepareCredentials(pool, sessionId);
    expect((await listSessionCredentials(pool, sessionId)).map((row) => row.credentialId)).toEqual([won]);
  }, 60_000);

  it('end with the session and do not come back', async () => {
    const vaultId = await makeVault(pool);
    await makeCredential(pool, ring, { vaultId, parts: { value: 'value' } });
    const sessionId = await makeSession(pool, [vaultId]);
    await prepareCredentials(pool, sessionId);
    await withTransaction(pool, (tx) => writeSessionEnd(tx, sessionId, 'archived'));
    expect(await placeholdersOf(pool, sessionId)).toEqual({});
    expect(await prepareCredentials(pool, sessionId)).toEqual({ count: 0, minted: 0 });
    expect(await placeholdersOf(pool, sessionId)).toEqual({});
  }, 60_000);
});
