import type { CredentialKind, CredentialSpec, CredentialState } from '../../contracts/credentials.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { SealedValue } from './credentials.ts';

/** A live credential with its newest value, still sealed. */
export interface SealedCredential {
  id: string;
  teamId: string;
  vaultId: string;
  kind: CredentialKind;
  name: string;
  spec: CredentialSpec;
  state: CredentialState;
  stateReason: string | null;
  refreshStartedAt: Date | null;
  version: number;
  value: SealedValue | null;
  secretRef: string | null;
  expiresAt: Date | null;
}

type SealedRow = Omit<SealedCredential, 'value'> & {
  keyId: string | null;
  wrappedKey: Buffer | null;
  sealed: Buffer | null;
};

/** Undefined when it, or its vault, is archived or deleted: nobody may use it any more. */
export async function findSealedCredential(db: Queryable, id: string): Promise<SealedCredential | undefined> {
  const result = await db.query(
    `SELECT c.id, c.team_id, c.vault_id, c.kind, c.name, c.spec, c.state, c.state_reason, c.refresh_started_at,
       v.version, v.key_id, v.wrapped_key, v.sealed, v.secret_ref, v.expires_at
     FROM credentials c JOIN vaults w ON w.id = c.vault_id
       JOIN credential_versions v ON v.credential_id = c.id AND v.version = c.current_version
     WHERE c.id = $1 AND c.archived_at IS NULL AND c.deleted_at IS NULL AND w.archived_at IS NULL AND w.deleted_at IS NULL`,
    [id],
  );
  const row = result.rows[0] as object | undefined;
  if (row === undefined) return undefined;
  const { keyId, wrappedKey, sealed, ...rest } = toCamel<SealedRow>(row);
  const value = keyId === null || wrappedKey === null || sealed === null ? null : { keyId, wrappedKey, sealed };
  return { ...rest, value };
}

/** One process renews a credential at a time; the lock dies with its connection. Waits for whoever has it. */
export async function lockRefresh(tx: Queryable, credentialId: string): Promise<void> {
  await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 13))', [credentialId]);
}

/** Written, and committed, before a refresh token leaves: found later, it tells that its answer may be lost. */
export async function markRefreshStarted(db: Queryable, credentialId: string): Promise<void> {
  await db.query('UPDATE credentials SET refresh_started_at = now() WHERE id = $1', [credentialId]);
}

/** The token endpoint did not take the token: it can be sent again. */
export async function clearRefreshStarted(db: Queryable, credentialId: string): Promise<void> {
  await db.query('UPDATE credentials SET refresh_started_at = NULL WHERE id = $1', [credentialId]);
}

/** Only a person can help now; a new value makes it active again. Returns false when it was so already. */
export async function setNeedsReauth(db: Queryable, credentialId: string, reason: string): Promise<boolean> {
  const result = await db.query(
    `UPDATE credentials SET state = 'needs_reauth', state_reason = $2, refresh_started_at = NULL, updated_at = now()
     WHERE id = $1 AND state = 'active'`,
    [credentialId, reason],
  );
  return (result.rowCount ?? 0) > 0;
}
