import { randomBytes } from 'node:crypto';
import type { CredentialSpec, SecretParts } from '../../contracts/credentials.ts';
import type { Pool } from '../../db/pool.ts';
import { createPool } from '../../db/pool.ts';
import { insertCredential, newCredentialId } from '../../db/queries/credentials.ts';
import { listSessionCredentials } from '../../db/queries/session-credentials.ts';
import { insertVault } from '../../db/queries/vaults.ts';
import { KeyRing } from '../../vault/key-ring.ts';
import { sealParts } from '../../vault/seal.ts';
import { learnShape } from '../../vault/shape.ts';
import { testDatabase } from '../support/postgres.ts';

/** A database with an agent and an environment of team `t`. */
export async function vaultDatabase(): Promise<{ pool: Pool; url: string; close: () => Promise<void> }> {
  const database = await testDatabase();
  const pool = createPool({ databaseUrl: database.url, applicationName: 'test-vault', max: 6 });
  await pool.query(`INSERT INTO agents (id, team_id, latest_version, created_by) VALUES ('agent_1', 't', 1, 'ada')`);
  await pool.query(`INSERT INTO agent_versions (agent_id, version, definition) VALUES ('agent_1', 1, '{}')`);
  await pool.query(`INSERT INTO environments (id, team_id, name, config) VALUES ('env_1', 't', 'e', '{}')`);
  const close = async () => {
    await pool.end();
    await database.drop();
  };
  return { pool, url: database.url, close };
}

export const newKey = (): string => randomBytes(32).toString('base64');
export const newRing = (): KeyRing => KeyRing.parse(newKey());
export const canary = (prefix = ''): string => `${prefix}canary-${randomBytes(16).toString('hex')}`;

export function specOf(fields: Partial<CredentialSpec> = {}): CredentialSpec {
  return {
    env: 'TOKEN',
    hosts: ['api.example.com'],
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
    ...fields,
  };
}

export async function makeVault(pool: Pool, teamId = 't'): Promise<string> {
  return (await insertVault(pool, { teamId, createdBy: 'ada' }, { displayName: 'v', metadata: {} })).id;
}

/** As the API writes it. */
export async function makeCredential(
  pool: Pool,
  ring: KeyRing,
  made: {
    vaultId: string;
    parts: SecretParts;
    teamId?: string;
    kind?: 'environment_variable' | 'static_bearer' | 'mcp_oauth' | 'git' | 'ssh';
    name?: string;
    spec?: Partial<CredentialSpec>;
    expiresAt?: Date;
    secretRef?: string;
  },
): Promise<string> {
  const id = newCredentialId();
  const teamId = made.teamId ?? 't';
  const spec = specOf(made.spec);
  const value = sealParts(ring, { teamId, vaultId: made.vaultId, credentialId: id, version: 1 }, made.parts);
  await insertCredential(pool, {
    id,
    teamId,
    vaultId: made.vaultId,
    kind: made.kind ?? 'environment_variable',
    name: made.name ?? spec.env ?? 'name',
    displayName: null,
    metadata: {},
    spec,
    shape: learnShape(made.parts.value ?? made.parts.access_token ?? ''),
    version: {
      value: made.secretRef === undefined ? value : null,
      secretRef: made.secretRef ?? null,
      expiresAt: made.expiresAt ?? null,
      createdBy: 'ada',
    },
  });
  return id;
}

export async function makeSession(pool: Pool, vaultIds: string[] = []): Promise<string> {
  const id = `sesn_${randomBytes(6).toString('hex')}`;
  await pool.query(
    `INSERT INTO sessions (id, team_id, created_by, agent_id, agent_version, agent, environment_id, environment, vault_ids)
     VALUES ($1, 't', 'ada', 'agent_1', 1, '{}', 'env_1', '{}', $2)`,
    [id, JSON.stringify(vaultIds)],
  );
  return id;
}

/** Names of variables with the placeholders that still stand for something. */
export async function placeholdersOf(pool: Pool, sessionId: string): Promise<Record<string, string>> {
  const live = (await listSessionCredentials(pool, sessionId)).filter((row) => row.revokedAt === null);
  return Object.fromEntries(live.flatMap(({ env, placeholder }) => (env === null ? [] : [[env, placeholder]])));
}
