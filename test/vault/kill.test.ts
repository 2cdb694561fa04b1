import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import { findSealedCredential } from '../../db/queries/credential-secrets.ts';
import { openAll } from '../../vault/backends/postgres.ts';
import { KeyRing } from '../../vault/key-ring.ts';
import { sealParts } from '../../vault/seal.ts';
import { startOAuthDouble } from '../doubles/oauth-server.ts';
import { eventually, makeHome, runCli, spawnCli } from '../support/stack.ts';
import { canary, makeCredential, makeVault, newKey, specOf, vaultDatabase } from './support.ts';

/** What is left when a process dies in the middle of it. */
const CHILD = fileURLToPath(new URL('../support/vault-child.mjs', import.meta.url));
let pool: Pool;
let url: string;
let close: () => Promise<void>;
const children: ChildProcess[] = [];
beforeAll(async () => {
  ({ pool, url, close } = await vaultDatabase());
}, 120_000);
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => close());

async function outputOf(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout?.on('data', (piece: Buffer) => (text += piece.toString()));
  await once(child, 'close');
  return text.trim();
}

describe('a renewal that is killed between the answer and its commit', () => {
  const key = newKey();
  const ring = KeyRing.parse(key);

  async function credentialAt(oauth: { url: string; refreshToken: string }): Promise<string> {
    return makeCredential(pool, ring, {
      vaultId: await makeVault(pool),
      kind: 'mcp_oauth',
      name: `${oauth.url}/mcp`,
      parts: { access_token: canary(), refresh_token: oauth.refreshToken },
      spec: {
        env: null,
        mcpServerUrl: `${oauth.url}/mcp`,
        refresh: {
          clientId: 'app',
          tokenEndpoint: `${oauth.url}/token`,
          tokenEndpointAuth: 'none',
          resource: null,
          scope: null,
        },
        parts: { access_token: 1, refresh_token: 1 },
      },
      expiresAt: new Date(Date.now() - 1_000),
    });
  }

  function resolve(id: string, host: string): ChildProcess {
    const env = { PATH: process.env['PATH'], LONGHAUL_VAULT_KEY: key, LONGHAUL_VAULT_PRIVATE_HOSTS: host };
    const child = spawn(process.execPath, [CHILD, url, id], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    return child;
  }

  /** Kills a process that has the answer and waits to commit it: a lock of ours keeps it from that. */
  async function killBeforeCommit(oauth: Awaited<ReturnType<typeof startOAuthDouble>>, id: string): Promise<void> {
    const blocker = await pool.connect();
    oauth.beforeAnswer = async () => {
      await blocker.query('BEGIN');
      await blocker.query('SELECT 1 FROM credentials WHERE id = $1 FOR UPDATE', [id]);
    };
    const child = resolve(id, oauth.host);
    await eventually('it waits to write the answer', async () => {
      const { rows } = await pool.query(
        `SELECT 1 FROM pg_stat_activity WHERE application_name = 'longhaul-egress-vault' AND wait_event_type = 'Lock'`,
      );
      return rows.length > 0;
    });
    child.kill('SIGKILL');
    await once(child, 'close');
    oauth.beforeAnswer = () => Promise.resolve();
    await blocker.query('ROLLBACK');
    blocker.release();
  }

  it('is not lost silently where the server takes a refresh token once', async () => {
    const oauth = await startOAuthDouble();
    const id = await credentialAt(oauth);
    await killBeforeCommit(oauth, id);
    expect(oauth.calls).toHaveLength(1);
    const between = await findSealedCredential(pool, id);
    expect(between).toMatchObject({ version: 1, state: 'active' });
    expect(between?.refreshStartedAt).not.toBeNull();
    expect(await outputOf(resolve(id, oauth.host))).toBe('credential_needs_reauth');
    const after = await findSealedCredential(pool, id);
    expect(after).toMatchObject({ version: 1, state: 'needs_reauth' });
    expect(after?.stateReason).toMatch(/^refresh_interrupted: /);
    const { rows } = await pool.query('SELECT action FROM audit WHERE resource = $1', [id]);
    expect(rows).toEqual([{ action: 'credential.needs_reauth' }]);
    oauth.close();
  }, 180_000);

  it('is made up for where the server takes it again', async () => {
    const oauth = await startOAuthDouble();
    oauth.rotates = false;
    const id = await credentialAt(oauth);
    await killBeforeCommit(oauth, id);
    expect(await outputOf(resolve(id, oauth.host))).toBe('version 2');
    const after = await findSealedCredential(pool, id);
    expect(after).toMatchObject({ version: 2, state: 'active', refreshStartedAt: null });
    expect(oauth.valid.has(openAll(ring, after!).access_token ?? '')).toBe(true);
    const { rows } = await pool.query('SELECT action, details FROM audit WHERE resource = $1', [id]);
    expect(rows).toMatchObject([{ action: 'credential.refresh', details: { after_interruption: true } }]);
    oauth.close();
  }, 180_000);
});

describe('a change of the master key that is killed', () => {
  it('goes on where it was, and touches no value', async () => {
    const [oldKey, currentKey] = [newKey(), newKey()];
    const [before, after] = [KeyRing.parse(oldKey), KeyRing.parse(currentKey)];
    const count = 15 * LIMITS.rewrapBatch;
    await pool.query('UPDATE credential_versions SET key_id = NULL, wrapped_key = NULL, sealed = NULL');
    const vaultId = await makeVault(pool);
    const ids = Array.from({ length: count }, (_, n) => `vcrd_many${String(n).padStart(6, '0')}`);
    const values = ids.map((credentialId) =>
      sealParts(before, { teamId: 't', vaultId, credentialId, version: 1 }, { value: `value of ${credentialId}` }),
    );
    await pool.query(
      `INSERT INTO credentials (id, team_id, vault_id, kind, name, spec, current_version, created_by)
       SELECT id, 't', $2, 'environment_variable', id, $3, 1, 'ada' FROM unnest($1::text[]) AS id`,
      [ids, vaultId, JSON.stringify(specOf())],
    );
    await pool.query(
      `INSERT INTO credential_versions (credential_id, version, key_id, wrapped_key, sealed, created_by)
       SELECT id, 1, $4, wrapped, sealed, 'ada' FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS v (id, wrapped, sealed)`,
      [ids, values.map((v) => v.wrappedKey), values.map((v) => v.sealed), before.current.id],
    );
    const home = makeHome();
    const env = { DATABASE_URL: url, LONGHAUL_VAULT_KEY: `${currentKey} ${oldKey}` };
    const child = spawnCli(['vault', 'rotate-key'], home, env);
    children.push(child);
    await once(child.stderr!, 'data');
    child.kill('SIGKILL');
    await once(child, 'close');
    const moved = async (): Promise<number> => {
      const { rows } = await pool.query<{ n: number }>(
        'SELECT count(*) AS n FROM credential_versions WHERE key_id = $1',
        [after.current.id],
      );
      return rows[0]?.n ?? 0;
    };
    const done = await moved();
    expect(done).toBeGreaterThan(0);
    expect(done).toBeLessThan(count);
    const opened = async (ring: KeyRing): Promise<string[]> => {
      const found: string[] = [];
      for (const id of [ids[0]!, ids[count - 1]!]) {
        const row = (await findSealedCredential(pool, id))!;
        found.push(openAll(ring, row).value ?? '');
      }
      return found;
    };
    const texts = [`value of ${ids[0]}`, `value of ${ids[count - 1]}`];
    // In between, with both keys, everything can be read.
    expect(await opened(KeyRing.parse(`${currentKey} ${oldKey}`))).toEqual(texts);
    const again = await runCli(['vault', 'rotate-key', '--json'], home, env);
    expect(again.code).toBe(0);
    expect(JSON.parse(again.stdout)).toMatchObject({
      keyId: after.current.id,
      rewrapped: count - done,
      failed: [],
      left: [],
    });
    expect(await opened(after)).toEqual(texts);
    const { rows } = await pool.query('SELECT to_key_id, rewrapped, ended_at IS NULL AS open FROM vault_key_rotations');
    expect(rows).toEqual([{ to_key_id: after.current.id, rewrapped: count, open: false }]);
    const keys = await runCli(['vault', 'keys'], home, { DATABASE_URL: url });
    expect(keys.stdout).toBe(`${after.current.id}  ${count}\n`);
    // A key that is not there is said, and nothing is changed.
    const stranger = await runCli(['vault', 'rotate-key'], home, { DATABASE_URL: url, LONGHAUL_VAULT_KEY: newKey() });
    expect(stranger.code).toBe(1);
    expect(await moved()).toBe(count);
    for (const { stdout, stderr } of [again, keys, stranger]) {
      for (const secret of [oldKey, currentKey, 'value of']) expect(stdout + stderr).not.toContain(secret);
    }
  }, 180_000);
});
