import type { CredentialKind, CredentialSpec, CredentialState, PlaceholderShape } from '../../contracts/credentials.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { notify } from '../listen.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Channel on which brokers hear `session:<id>` (what it may use changed) and `credential:<id>` (its value or its rules). */
export const CREDENTIALS_CHANNEL = 'longhaul_credentials';

/** A credential without its value. */
export interface CredentialRow extends CredentialFields {
  id: string;
  teamId: string;
  vaultId: string;
  kind: CredentialKind;
  name: string;
  currentVersion: number;
  state: CredentialState;
  stateReason: string | null;
  /** Of the newest version. */
  secretRef: string | null;
  expiresAt: Date | null;
  createdBy: string;
  createdAt: Date;
  updatedAt: Date;
  archivedAt: Date | null;
}

/** What an edit may change. */
export interface CredentialFields {
  displayName: string | null;
  metadata: Record<string, string>;
  spec: CredentialSpec;
  shape: PlaceholderShape;
}

/** A value as it lies in the database: only who holds the master key can open it. */
export interface SealedValue {
  keyId: string;
  wrappedKey: Buffer;
  sealed: Buffer;
}

/** What a new version brings. */
export interface VersionDraft {
  /** null: all of it lies behind `secretRef`. */
  value: SealedValue | null;
  secretRef: string | null;
  expiresAt: Date | null;
  createdBy: string;
}

const FIELDS = `c.id, c.team_id, c.vault_id, c.kind, c.display_name, c.metadata, c.name, c.spec, c.shape, c.current_version,
  c.state, c.state_reason, v.secret_ref, v.expires_at, c.created_by, c.created_at, c.updated_at, c.archived_at`;
const FROM = `credentials c JOIN credential_versions v ON v.credential_id = c.id AND v.version = c.current_version`;

/** A fresh id: sealing needs it before the row is written. */
export function newCredentialId(): string {
  return newId('credential');
}

export async function insertCredential(
  tx: Queryable,
  draft: CredentialFields & {
    id: string;
    teamId: string;
    vaultId: string;
    kind: CredentialKind;
    name: string;
    version: VersionDraft;
  },
): Promise<CredentialRow> {
  await tx.query(
    `INSERT INTO credentials (id, team_id, vault_id, kind, display_name, metadata, name, spec, shape, current_version,
       created_by)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10)`,
    [
      draft.id,
      draft.teamId,
      draft.vaultId,
      draft.kind,
      draft.displayName,
      JSON.stringify(draft.metadata),
      draft.name,
      JSON.stringify(draft.spec),
      JSON.stringify(draft.shape),
      draft.version.createdBy,
    ],
  );
  await insertVersion(tx, draft.id, 1, draft.version);
  return getCredential(tx, { teamId: draft.teamId, vaultId: draft.vaultId, id: draft.id });
}

/**
 * Makes a new version the one in use, in the caller's transaction. Versions that hold no part of the secret any more have
 * their value destroyed, and old ones are forgotten altogether.
 */
export async function replaceVersion(
  tx: Queryable,
  id: string,
  draft: VersionDraft & { version: number; spec: CredentialSpec; shape?: PlaceholderShape },
): Promise<void> {
  const { version, spec } = draft;
  await insertVersion(tx, id, version, draft);
  await tx.query(
    `UPDATE credentials SET current_version = $2, spec = $3, shape = coalesce($4, shape), state = 'active',
       state_reason = NULL, refresh_started_at = NULL, updated_at = now() WHERE id = $1`,
    [id, version, JSON.stringify(spec), draft.shape === undefined ? null : JSON.stringify(draft.shape)],
  );
  const kept = [version, ...Object.values(spec.parts)];
  await tx.query(
    `UPDATE credential_versions SET key_id = NULL, wrapped_key = NULL, sealed = NULL
     WHERE credential_id = $1 AND version <> ALL($2) AND sealed IS NOT NULL`,
    [id, kept],
  );
  await tx.query('DELETE FROM credential_versions WHERE credential_id = $1 AND version <= $2 AND version <> ALL($3)', [
    id,
    version - LIMITS.credentialVersions,
    kept,
  ]);
  await notify(tx, CREDENTIALS_CHANNEL, `credential:${id}`);
}

async function insertVersion(tx: Queryable, id: string, version: number, draft: VersionDraft): Promise<void> {
  const { value } = draft;
  await tx.query(
    `INSERT INTO credential_versions (credential_id, version, key_id, wrapped_key, sealed, secret_ref, expires_at,
       created_by)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [
      id,
      version,
      value?.keyId ?? null,
      value?.wrappedKey ?? null,
      value?.sealed ?? null,
      draft.secretRef,
      draft.expiresAt,
      draft.createdBy,
    ],
  );
}

interface CredentialPlace {
  teamId: string;
  vaultId: string;
  id: string;
}

/** With `lock`, no other change until the transaction ends. */
export async function getCredential(
  db: Queryable,
  { teamId, vaultId, id }: CredentialPlace,
  options: { lock?: boolean } = {},
): Promise<CredentialRow> {
  const result = await db.query(
    `SELECT ${FIELDS} FROM ${FROM}
     WHERE c.id = $1 AND c.vault_id = $2 AND c.team_id = $3 AND c.deleted_at IS NULL
     ${options.lock === true ? 'FOR UPDATE OF c' : ''}`,
    [id, vaultId, teamId],
  );
  return toCamel<CredentialRow>(requireRow(result.rows[0] as object | undefined, `credential ${id}`));
}

/** Keeps everybody else from changing it until the transaction ends; undefined when it is gone. */
export async function lockCredential(tx: Queryable, id: string): Promise<{ currentVersion: number } | undefined> {
  const result = await tx.query(
    'SELECT current_version FROM credentials WHERE id = $1 AND archived_at IS NULL AND deleted_at IS NULL FOR UPDATE',
    [id],
  );
  const row = result.rows[0] as object | undefined;
  return row === undefined ? undefined : toCamel<{ currentVersion: number }>(row);
}

/** Live credentials of a team, oldest first. */
export async function listCredentialIds(db: Queryable, teamId: string, limit: number): Promise<string[]> {
  const result = await db.query<{ id: string }>(
    `SELECT id FROM credentials WHERE team_id = $1 AND archived_at IS NULL AND deleted_at IS NULL
     ORDER BY created_at, id LIMIT $2`,
    [teamId, limit],
  );
  return result.rows.map((row) => row.id);
}

export async function updateCredential(tx: Queryable, id: string, fields: CredentialFields): Promise<void> {
  await tx.query(
    `UPDATE credentials SET display_name = $2, metadata = $3, spec = $4, shape = $5, updated_at = now() WHERE id = $1`,
    [
      id,
      fields.displayName,
      JSON.stringify(fields.metadata),
      JSON.stringify(fields.spec),
      JSON.stringify(fields.shape),
    ],
  );
}

/** When the token that is stored ends, as its owner says. */
export async function setExpiry(
  tx: Queryable,
  { id, currentVersion }: { id: string; currentVersion: number },
  expiresAt: Date,
): Promise<void> {
  await tx.query('UPDATE credential_versions SET expires_at = $3 WHERE credential_id = $1 AND version = $2', [
    id,
    currentVersion,
    expiresAt,
  ]);
}

/** Archives one credential, or all of a vault; their values are destroyed with it. Returns those it changed. */
export async function archiveCredentials(
  tx: Queryable,
  where: { vaultId: string; id?: string },
): Promise<{ id: string }[]> {
  return end(tx, 'archived_at = now(), updated_at = now()', 'archived_at IS NULL', where);
}

/** Takes away one credential, or all of a vault: values are destroyed, and only a name is left for the audit. */
export async function deleteCredentials(
  tx: Queryable,
  where: { vaultId: string; id?: string },
): Promise<{ id: string }[]> {
  return end(tx, `deleted_at = now(), archived_at = coalesce(archived_at, now()), metadata = '{}'`, 'true', where);
}

async function end(
  tx: Queryable,
  change: string,
  condition: string,
  where: { vaultId: string; id?: string },
): Promise<{ id: string }[]> {
  const ended = await tx.query<{ id: string }>(
    `UPDATE credentials SET ${change}
     WHERE vault_id = $1 AND ($2::text IS NULL OR id = $2) AND deleted_at IS NULL AND ${condition} RETURNING id`,
    [where.vaultId, where.id ?? null],
  );
  await tx.query(
    `UPDATE credential_versions SET key_id = NULL, wrapped_key = NULL, sealed = NULL
     WHERE credential_id = ANY($1) AND sealed IS NOT NULL`,
    [ended.rows.map((row) => row.id)],
  );
  return ended.rows;
}

/** How many live credentials a vault has, and whether the name is taken among those of the kind. */
export async function countCredentials(
  db: Queryable,
  vaultId: string,
  named: { kind: CredentialKind; name: string },
): Promise<{ count: number; isNameTaken: boolean }> {
  const result = await db.query<{ count: number; taken: boolean }>(
    `SELECT count(*) AS count, coalesce(bool_or(kind = $2 AND name = $3), false) AS taken FROM credentials
     WHERE vault_id = $1 AND deleted_at IS NULL AND archived_at IS NULL`,
    [vaultId, named.kind, named.name],
  );
  const row = requireRow(result.rows[0], 'count');
  return { count: row.count, isNameTaken: row.taken };
}

export async function listCredentials(
  db: Queryable,
  where: { teamId: string; vaultId: string; includeArchived: boolean },
  page: PageRequest,
): Promise<Page<CredentialRow>> {
  const filter = new Filter().add('team_id = ?', where.teamId).add('vault_id = ?', where.vaultId);
  if (!where.includeArchived) filter.addFixed('archived_at IS NULL');
  return selectPage<CredentialRow>(db, `SELECT ${FIELDS} FROM ${FROM} WHERE c.deleted_at IS NULL`, filter, page);
}
