import type { CredentialKind, CredentialSpec, CredentialState } from '../../contracts/credentials.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { SealedValue } from './credentials.ts';

/** A live credential with its secret, still sealed. */
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
  secretRef: string | null;
  expiresAt: Date | null;
  /** Every version that still holds a part, by number. */
  sealed: Map<number, SealedValue>;
}

/** Undefined when it, or its vault, is archived or deleted: nobody may use it any more. */
export async function findSealedCredential(db: Queryable, id: string): Promise<SealedCredential | undefined> {
  // One statement: what it sees is of one moment, also while somebody replaces the value.
  const result = await db.query(
    `SELECT c.id, c.team_id, c.vault_id, c.kind, c.name, c.spec, c.state, c.state_reason, c.refresh_started_at,
       v.version, v.secret_ref, v.expires_at,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('version', p.version, 'keyId', p.key_id,
            'wrappedKey', encode(p.wrapped_key, 'base64'), 'sealed', encode(p.sealed, 'base64'))), '[]')
        FROM credential_versions p WHERE p.credential_id = c.id AND p.sealed IS NOT NULL) AS sealed
     FROM credentials c JOIN vaults w ON w.id = c.vault_id
       JOIN credential_versions v ON v.credential_id = c.id AND v.version = c.current_version
     WHERE c.id = $1 AND c.archived_at IS NULL AND c.deleted_at IS NULL AND w.archived_at IS NULL AND w.deleted_at IS NULL`,
    [id],
  );
  const row = result.rows[0] as object | undefined;
  if (row === undefined) return undefined;
  const { sealed, ...rest } = toCamel<Omit<SealedCredential, 'sealed'> & { sealed: SealedJson[] }>(row);
  return { ...rest, sealed: new Map(sealed.map((one) => [one.version, fromJson(one)])) };
}

interface SealedJson {
  version: number;
  keyId: string;
  wrappedKey: string;
  sealed: string;
}

function fromJson({ keyId, wrappedKey, sealed }: SealedJson): SealedValue {
  return { keyId, wrappedKey: Buffer.from(wrappedKey, 'base64'), sealed: Buffer.from(sealed, 'base64') };
}

/** Space of the advisory locks under which access tokens are renewed. */
export const REFRESH_LOCKS = 13;

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
