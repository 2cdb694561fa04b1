import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../pool.ts';
import { deleteInBatches } from './retention.ts';

const ABANDONED_MS = 3_600_000;
const SURPLUS_BATCH = 20_000;

/** `response`: answers of models. `content`: what follows from bytes alone, whoever asks. */
export type AnswerLayer = 'response' | 'content';

/** An answer that may be given again, with who made it. */
export interface CachedAnswer {
  headers: Record<string, string>;
  body: Buffer;
  provider: string;
  model: string;
  deployment: string | null;
}

/** What became of asking for an answer. `owned`: it is the asker's to make. */
export type AnswerClaim = { state: 'hit'; answer: CachedAnswer } | { state: 'owned' } | { state: 'busy' };

export interface AnswerKey {
  key: string;
  layer: AnswerLayer;
  teamId: string;
}

/** A fresh answer, or the right to make it: of many askers, one gets that until its lease ends. */
export async function claimAnswer(
  db: Queryable,
  at: AnswerKey,
  lease: { owner: string; leaseMs: number },
): Promise<AnswerClaim> {
  const found = await db.query<{ answer: Omit<CachedAnswer, 'body'>; body: Buffer }>(
    `SELECT answer, body FROM cached_answers WHERE key = $1 AND state = 'complete' AND expires_at > now()`,
    [at.key],
  );
  const [row] = found.rows;
  if (row !== undefined) return { state: 'hit', answer: { ...row.answer, body: row.body } };
  const claimed = await db.query(
    `INSERT INTO cached_answers AS c (key, layer, team_id, state, owner, lease_expires_at)
     VALUES ($1, $2, $3, 'in_flight', $4, now() + make_interval(secs => $5 / 1000.0))
     ON CONFLICT (key) DO UPDATE
       SET state = 'in_flight', owner = excluded.owner, lease_expires_at = excluded.lease_expires_at, answer = NULL,
         body = NULL, expires_at = NULL, created_at = now()
       WHERE (c.state = 'in_flight' AND c.lease_expires_at < now()) OR (c.state = 'complete' AND c.expires_at <= now())`,
    [at.key, at.layer, at.teamId, lease.owner, lease.leaseMs],
  );
  return { state: claimed.rowCount === 1 ? 'owned' : 'busy' };
}

/** Keeps the answer, also when the right to make it was got elsewhere; one that somebody else made meanwhile stays. */
export async function completeAnswer(
  db: Queryable,
  at: AnswerKey,
  owner: string,
  { body, ...answer }: CachedAnswer,
  ttlMs: number,
): Promise<void> {
  await db.query(
    `INSERT INTO cached_answers AS c (key, layer, team_id, state, owner, lease_expires_at, answer, body, expires_at)
     VALUES ($1, $2, $3, 'complete', $4, now(), $5, $6, now() + make_interval(secs => $7 / 1000.0))
     ON CONFLICT (key) DO UPDATE
       SET state = 'complete', owner = excluded.owner, answer = excluded.answer, body = excluded.body,
         expires_at = excluded.expires_at, created_at = now()
       WHERE c.state = 'in_flight' OR c.expires_at <= now()`,
    [at.key, at.layer, at.teamId, owner, JSON.stringify(answer), body, ttlMs],
  );
}

/** Gives the right to make an answer back. */
export async function releaseAnswer(db: Queryable, key: string, owner: string): Promise<void> {
  await db.query(`DELETE FROM cached_answers WHERE key = $1 AND owner = $2 AND state = 'in_flight'`, [key, owner]);
}

export async function renewAnswers(db: Queryable, keys: string[], owner: string, leaseMs: number): Promise<void> {
  await db.query(
    `UPDATE cached_answers SET lease_expires_at = now() + make_interval(secs => $3 / 1000.0)
     WHERE key = ANY($1) AND owner = $2 AND state = 'in_flight'`,
    [keys, owner, leaseMs],
  );
}

/** Removes answers that are too old to be given, and the oldest beyond the total there may be. Returns how many. */
export async function deleteOldAnswers(db: Queryable, batch: number): Promise<number> {
  const expired = await deleteInBatches(
    db,
    `DELETE FROM cached_answers WHERE key IN (
       SELECT key FROM cached_answers
       WHERE state = 'complete' AND expires_at < now() - make_interval(secs => $1 / 1000.0) LIMIT $2)`,
    { olderThanMs: 0, batch },
  );
  // Their askers died, and nobody has asked since.
  const abandoned = await deleteInBatches(
    db,
    `DELETE FROM cached_answers WHERE key IN (
       SELECT key FROM cached_answers
       WHERE state = 'in_flight' AND lease_expires_at < now() - make_interval(secs => $1 / 1000.0) LIMIT $2)`,
    { olderThanMs: ABANDONED_MS, batch },
  );
  // One statement: what is left over is found by the next clean-up.
  const surplus = await db.query(
    `DELETE FROM cached_answers WHERE key IN (
       SELECT key FROM cached_answers WHERE state = 'complete' ORDER BY created_at DESC OFFSET $1 LIMIT $2)`,
    [LIMITS.cachedAnswers, SURPLUS_BATCH],
  );
  return expired + abandoned + (surplus.rowCount ?? 0);
}
