import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../pool.ts';
import { deleteInBatches } from './retention.ts';

export interface StoredResponse {
  route: string;
  bodyDigest: string;
  status: number;
  response: unknown;
}

/**
 * Takes the key until the transaction ends; false when another transaction holds it. The lock dies with its
 * transaction, so a crash never leaves a key "in progress".
 */
export async function lockIdempotencyKey(tx: Queryable, principal: string, key: string): Promise<boolean> {
  const result = await tx.query<{ locked: boolean }>(
    'SELECT pg_try_advisory_xact_lock(hashtextextended($1, 1)) AS locked',
    [`${principal}\n${key}`],
  );
  return result.rows[0]?.locked === true;
}

/** What the key answered before; too old ones are forgotten here. */
export async function findStoredResponse(
  tx: Queryable,
  principal: string,
  key: string,
): Promise<StoredResponse | undefined> {
  await tx.query(
    `DELETE FROM idempotency_keys
     WHERE principal = $1 AND key = $2 AND created_at < now() - make_interval(secs => $3 / 1000.0)`,
    [principal, key, LIMITS.idempotencyTtlMs],
  );
  const result = await tx.query<{ route: string; body_digest: string; status: number; response: unknown }>(
    'SELECT route, body_digest, status, response FROM idempotency_keys WHERE principal = $1 AND key = $2',
    [principal, key],
  );
  const row = result.rows[0];
  if (row === undefined) return undefined;
  return { route: row.route, bodyDigest: row.body_digest, status: row.status, response: row.response };
}

/** Stores the answer in the transaction of the work it answers for: both exist or neither. */
export async function storeResponse(
  tx: Queryable,
  principal: string,
  key: string,
  stored: StoredResponse,
): Promise<void> {
  await tx.query(
    `INSERT INTO idempotency_keys (principal, key, route, body_digest, status, response) VALUES ($1, $2, $3, $4, $5, $6)`,
    [principal, key, stored.route, stored.bodyDigest, stored.status, JSON.stringify(stored.response)],
  );
}

/** Drops answers past their time, `batch` at once; returns how many. */
export async function deleteOldResponses(db: Queryable, batch: number): Promise<number> {
  return deleteInBatches(
    db,
    `DELETE FROM idempotency_keys WHERE (principal, key) IN (
       SELECT principal, key FROM idempotency_keys
       WHERE created_at < now() - make_interval(secs => $1 / 1000.0) ORDER BY created_at LIMIT $2)`,
    { olderThanMs: LIMITS.idempotencyTtlMs, batch },
  );
}
