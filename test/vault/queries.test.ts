import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CredentialSpec } from '../../contracts/credentials.ts';
import type { Pool } from '../../db/pool.ts';
import { createPool, withTransaction } from '../../db/pool.ts';
import { findSealedCredential } from '../../db/queries/credential-secrets.ts';
import {
  archiveCredentials,
  getCredential,
  insertCredential,
  newCredentialId,
  replaceVersion,
  updateCredential,
} from '../../db/queries/credentials.ts';
import {
  findSessionCandidates,
  insertSessionCredential,
  listSessionCredentials,
  revokeSessionCredentials,
  syncSessionRules,
} from '../../db/queries/session-credentials.ts';
import { writeSessionEnd } from '../../db/queries/session-end.ts';
import { putBinding } from '../../db/queries/vault-bindings.ts';
import { archiveVault, insertVault } from '../../db/queries/vaults.ts';
import { testDatabase } from '../support/postgres.ts';

let pool: Pool;
let end: () => Promise<void>;
const SHAPE = { prefix: 'ghp_', alphabet: 'alnum', lengthChars: 40 } as const;

beforeAll(async () => {
  const database = await testDatabase();
  pool = createPool({ databaseUrl: database.url, applicationName: 'test', max: 4 });
  end = async () => {
    await pool.end();
    await database.drop();
  };
  await pool.query(`INSERT INTO agents (id, team_id, latest_version, created_by) VALUES ('agent_1', 't', 1, 'ada')`);
  await pool.query(`INSERT INTO agent_versions (agent_id, version, definition) VALUES ('agent_1', 1, '{}')`);
  await pool.query(`INSERT INTO environments (id, team_id, name, config) VALUES ('env_1', 't', 'e', '{}')`);
}, 120_000);
afterAll(() => end());

function spec(env: string, hosts: string[] = ['api.example.com']): CredentialSpec {
  return {
    env,
    hosts,
    unrestricted: false,
    locations: ['header', 'basic'],
    headerName: null,
    template: null,
    username: null,
    methods: null,
    paths: null,
    mcpServerUrl: null,
    refresh: null,
    parts: { value: 1 },
  };
}

async function makeSession(vaultIds: string[]): Promise<string> {
  const id = `sesn_${randomBytes(6).toString('hex')}`;
  await pool.query(
    `INSERT INTO sessions (id, team_id, created_by, agent_id, agent_version, agent, environment_id, environment, vault_ids)
     VALUES ($1, 't', 'ada', 'agent_1', 1, '{}', 'env_1', '{}', $2)`,
    [id, JSON.stringify(vaultIds)],
  );
  return id;
}

async function makeCredential(vaultId: string, env: string): Promise<string> {
  const id = newCredentialId();
  const value = { keyId: 'k1', wrappedKey: randomBytes(60), sealed: randomBytes(40) };
  const version = { value, secretRef: null, expiresAt: null, createdBy: 'ada' };
  const place = { id, teamId: 't', vaultId, kind: 'environment_variable', name: env } as const;
  await insertCredential(pool, { ...place, displayName: null, metadata: {}, spec: spec(env), shape: SHAPE, version });
  return id;
}

const mint = (sessionId: string) =>
  withTransaction(pool, async (tx) => {
    const found = await findSessionCandidates(tx, sessionId, 100);
    for (const one of found)
      await insertSessionCredential(tx, sessionId, one, `ghp_${randomBytes(18).toString('hex')}`);
    return found.map((one) => one.name);
  });

describe('the rows of the vault', () => {
  it('gives a session what its vaults and the bound ones hold, its own first', async () => {
    const [own, bound, elsewhere] = await Promise.all(
      ['own', 'bound', 'elsewhere'].map((displayName) =>
        insertVault(
          pool,
          { teamId: displayName === 'elsewhere' ? 'other' : 't', createdBy: 'ada' },
          { displayName, metadata: {} },
        ),
      ),
    );
    await makeCredential(own!.id, 'MINE');
    await makeCredential(bound!.id, 'OURS');
    await makeCredential(elsewhere!.id, 'THEIRS');
    await putBinding(pool, { teamId: 't', vaultId: bound!.id, targetType: 'user', targetId: 'ada', createdBy: 'ada' });
    await putBinding(pool, { teamId: 't', vaultId: bound!.id, targetType: 'team', targetId: 't', createdBy: 'ada' });
    const sessionId = await makeSession([own!.id, elsewhere!.id]);
    expect(await mint(sessionId)).toEqual(['MINE', 'OURS']);
    await mint(sessionId);
    const rows = await listSessionCredentials(pool, sessionId);
    expect(rows.map((row) => row.env)).toEqual(['MINE', 'OURS']);
    expect(rows[0]).toMatchObject({ hosts: ['api.example.com'], locations: ['header', 'basic'], methods: null });
    await archiveVault(pool, bound!.id);
    expect(await mint(await makeSession([own!.id]))).toEqual(['MINE']);
    await withTransaction(pool, (tx) => writeSessionEnd(tx, sessionId, 'archived'));
    for (const row of await listSessionCredentials(pool, sessionId)) expect(row.revokedAt).not.toBeNull();
    const { rows: audit } = await pool.query(`SELECT action FROM audit WHERE session_id = $1`, [sessionId]);
    expect(audit).toContainEqual({ action: 'credential.revoke' });
  }, 60_000);

  it('keeps one value, follows edits into sessions, and leaves no value behind an archived one', async () => {
    const vault = await insertVault(pool, { teamId: 't', createdBy: 'ada' }, { displayName: 'v', metadata: {} });
    const id = await makeCredential(vault.id, 'TOKEN');
    const sessionId = await makeSession([vault.id]);
    await mint(sessionId);
    const value = { keyId: 'k2', wrappedKey: randomBytes(60), sealed: randomBytes(40) };
    const second = { ...spec('TOKEN'), parts: { value: 2 } };
    const draft = { value, secretRef: null, expiresAt: null, createdBy: 'ada' };
    await replaceVersion(pool, id, { ...draft, version: 2, spec: second });
    expect(await findSealedCredential(pool, id)).toMatchObject({ version: 2, sealed: new Map([[2, value]]) });
    const before = await getCredential(pool, { teamId: 't', vaultId: vault.id, id });
    const narrowed = spec('TOKEN', ['only.example.com']);
    await updateCredential(pool, id, { ...before, spec: narrowed });
    await syncSessionRules(pool, id, narrowed);
    expect(await listSessionCredentials(pool, sessionId)).toMatchObject([{ hosts: ['only.example.com'] }]);
    await archiveCredentials(pool, { vaultId: vault.id, id });
    expect(await revokeSessionCredentials(pool, { credentialIds: [id] })).toEqual([{ sessionId, credentialId: id }]);
    expect(await findSealedCredential(pool, id)).toBeUndefined();
    const { rows } = await pool.query(
      'SELECT 1 FROM credential_versions WHERE credential_id = $1 AND sealed IS NOT NULL',
      [id],
    );
    expect(rows).toEqual([]);
  }, 60_000);
});
