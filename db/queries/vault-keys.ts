import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** A sealed version's key, wrapped by a master key that is to be replaced, and where it belongs. */
export interface VersionToRewrap {
  teamId: string;
  vaultId: string;
  credentialId: string;
  version: number;
  keyId: string;
  wrappedKey: Buffer;
}

/** How many values each master key still guards. */
export async function countByKey(db: Queryable): Promise<{ keyId: string; count: number }[]> {
  const result = await db.query(
    `SELECT key_id, count(*) AS count FROM credential_versions WHERE key_id IS NOT NULL GROUP BY key_id ORDER BY key_id`,
  );
  return result.rows.map((row: object) => toCamel<{ keyId: string; count: number }>(row));
}

/** The next versions under other keys, after a place in their order; others that rewrap skip what is locked here. */
export async function lockVersionsToRewrap(
  tx: Queryable,
  want: { keyId: string; after: { credentialId: string; version: number }; limit: number },
): Promise<VersionToRewrap[]> {
  const result = await tx.query(
    `SELECT c.team_id, c.vault_id, v.credential_id, v.version, v.key_id, v.wrapped_key
     FROM credential_versions v JOIN credentials c ON c.id = v.credential_id
     WHERE v.key_id IS NOT NULL AND v.key_id <> $1 AND (v.credential_id, v.version) > ($2, $3)
     ORDER BY v.credential_id, v.version LIMIT $4 FOR UPDATE OF v SKIP LOCKED`,
    [want.keyId, want.after.credentialId, want.after.version, want.limit],
  );
  return result.rows.map((row: object) => toCamel<VersionToRewrap>(row));
}

export async function putRewrapped(tx: Queryable, row: VersionToRewrap): Promise<void> {
  await tx.query(
    `UPDATE credential_versions SET key_id = $3, wrapped_key = $4 WHERE credential_id = $1 AND version = $2`,
    [row.credentialId, row.version, row.keyId, row.wrappedKey],
  );
}

/** The rotation to this key that is open, or a new one: what a killed process began is gone on with. */
export async function openRotation(db: Queryable, toKeyId: string): Promise<{ id: number; rewrapped: number }> {
  const result = await db.query<{ id: number; rewrapped: number }>(
    `INSERT INTO vault_key_rotations (to_key_id) VALUES ($1)
     ON CONFLICT (to_key_id) WHERE ended_at IS NULL DO UPDATE SET to_key_id = excluded.to_key_id RETURNING id, rewrapped`,
    [toKeyId],
  );
  return result.rows[0] as { id: number; rewrapped: number };
}

export async function noteRewrapped(
  tx: Queryable,
  id: number,
  done: { rewrapped: number; failed: number },
): Promise<void> {
  await tx.query('UPDATE vault_key_rotations SET rewrapped = rewrapped + $2, failed = failed + $3 WHERE id = $1', [
    id,
    done.rewrapped,
    done.failed,
  ]);
}

export async function endRotation(tx: Queryable, id: number): Promise<void> {
  await tx.query('UPDATE vault_key_rotations SET ended_at = now() WHERE id = $1', [id]);
}
