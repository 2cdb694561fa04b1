import type { Queryable } from '../pool.ts';

/** The answer of a model call as it was first given. */
export interface RecordedAnswer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/** What became of an attempt to own a call. */
export type Claim =
  | { state: 'owned'; attempts: number }
  | { state: 'complete'; requestDigest: string; answer: RecordedAnswer }
  | { state: 'in_flight'; requestDigest: string; owner: string };

interface CallPlace {
  key: string;
  sessionId: string | null;
  requestDigest: string;
  owner: string;
  leaseMs: number;
}

/**
 * First asker owns the call; after the lease of a dead owner ran out, the next one takes it over by
 * compare-and-swap. A request with another digest never takes a call over.
 */
export async function claimModelCall(db: Queryable, place: CallPlace): Promise<Claim> {
  const claimed = await db.query<{ attempts: number }>(
    `INSERT INTO model_calls AS c (idempotency_key, session_id, request_digest, state, owner, lease_expires_at)
     VALUES ($1, $2, $3, 'in_flight', $4, now() + make_interval(secs => $5 / 1000.0))
     ON CONFLICT (idempotency_key) DO UPDATE
       SET owner = excluded.owner, lease_expires_at = excluded.lease_expires_at, attempts = c.attempts + 1
       WHERE c.state = 'in_flight' AND c.lease_expires_at < now() AND c.request_digest = excluded.request_digest
     RETURNING attempts`,
    [place.key, place.sessionId, place.requestDigest, place.owner, place.leaseMs],
  );
  const own = claimed.rows[0];
  if (own !== undefined) return { state: 'owned', attempts: own.attempts };
  return (await findModelCall(db, place.key)) ?? claimModelCall(db, place);
}

/** A recorded or running call. */
export async function findModelCall(
  db: Queryable,
  key: string,
): Promise<Exclude<Claim, { state: 'owned' }> | undefined> {
  const result = await db.query<{
    state: 'in_flight' | 'complete';
    request_digest: string;
    owner: string;
    status: number | null;
    headers: Record<string, string> | null;
    body: Buffer | null;
  }>('SELECT state, request_digest, owner, status, headers, body FROM model_calls WHERE idempotency_key = $1', [key]);
  const row = result.rows[0];
  if (row === undefined) return undefined;
  if (row.state === 'in_flight') return { state: 'in_flight', requestDigest: row.request_digest, owner: row.owner };
  const answer = { status: row.status ?? 200, headers: row.headers ?? {}, body: row.body ?? Buffer.alloc(0) };
  return { state: 'complete', requestDigest: row.request_digest, answer };
}

/** Keys of a session's calls that have no recorded answer yet. */
export async function listRunningCalls(db: Queryable, sessionId: string): Promise<string[]> {
  const result = await db.query<{ idempotency_key: string }>(
    `SELECT idempotency_key FROM model_calls WHERE session_id = $1 AND state = 'in_flight'`,
    [sessionId],
  );
  return result.rows.map((row) => row.idempotency_key);
}

/** Renews the leases of one owner; a key that is missing in the answer is no longer its. */
export async function renewModelCalls(
  db: Queryable,
  owner: string,
  keys: string[],
  leaseMs: number,
): Promise<Set<string>> {
  const result = await db.query<{ idempotency_key: string }>(
    `UPDATE model_calls SET lease_expires_at = now() + make_interval(secs => $3 / 1000.0)
     WHERE owner = $1 AND state = 'in_flight' AND idempotency_key = ANY($2) RETURNING idempotency_key`,
    [owner, keys, leaseMs],
  );
  return new Set(result.rows.map((row) => row.idempotency_key));
}

/** Records the answer; false when the call is no longer this owner's. */
export async function completeModelCall(
  db: Queryable,
  key: string,
  owner: string,
  answer: RecordedAnswer,
): Promise<boolean> {
  const result = await db.query(
    `UPDATE model_calls SET state = 'complete', status = $3, headers = $4, body = $5, completed_at = now()
     WHERE idempotency_key = $1 AND owner = $2 AND state = 'in_flight'`,
    [key, owner, answer.status, JSON.stringify(answer.headers), answer.body],
  );
  return result.rowCount === 1;
}

/** Gives the key free again: nothing was answered under it. */
export async function releaseModelCall(db: Queryable, key: string, owner: string): Promise<void> {
  await db.query(`DELETE FROM model_calls WHERE idempotency_key = $1 AND owner = $2 AND state = 'in_flight'`, [
    key,
    owner,
  ]);
}

/**
 * Makes `answer` what this key says from now on, whoever calls the model at the moment; its owner finds out when it
 * renews or records. Returns false when an answer was recorded before.
 */
export async function cancelModelCall(
  db: Queryable,
  place: { key: string; sessionId: string; owner: string },
  answer: RecordedAnswer,
): Promise<boolean> {
  const result = await db.query(
    `INSERT INTO model_calls AS c (idempotency_key, session_id, request_digest, state, owner, lease_expires_at, status,
       headers, body, completed_at)
     VALUES ($1, $2, $3, 'complete', $4, now(), $5, $6, $7, now())
     ON CONFLICT (idempotency_key) DO UPDATE
       SET state = 'complete', request_digest = excluded.request_digest, status = excluded.status,
         headers = excluded.headers, body = excluded.body, completed_at = now()
       WHERE c.state = 'in_flight'`,
    [
      place.key,
      place.sessionId,
      CANCELLED_DIGEST,
      place.owner,
      answer.status,
      JSON.stringify(answer.headers),
      answer.body,
    ],
  );
  return result.rowCount === 1;
}

/** Digest of a cancelled call: it answers every request under its key, whatever the body. */
export const CANCELLED_DIGEST = 'cancelled';
