import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../pool.ts';

/** Bounds one clean-up; the next one goes on. */
const ROUNDS = 50;

/** Removes recorded model answers that no retry can ask for any more, `batch` at once. Returns how many. */
export async function deleteOldModelCalls(db: Queryable, batch: number): Promise<number> {
  return deleteInBatches(
    db,
    `DELETE FROM model_calls WHERE idempotency_key IN (
       SELECT idempotency_key FROM model_calls
       WHERE created_at < now() - make_interval(secs => $1 / 1000.0) AND state = 'complete' ORDER BY created_at LIMIT $2)`,
    { olderThanMs: LIMITS.recordedCallTtlMs, batch },
  );
}

/** Repeats a DELETE of at most $2 rows older than $1 ms until nothing old is left: short statements, no backlog. */
export async function deleteInBatches(
  db: Queryable,
  statement: string,
  what: { olderThanMs: number; batch: number },
): Promise<number> {
  let deleted = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const { rowCount } = await db.query(statement, [what.olderThanMs, what.batch]);
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < what.batch) break;
  }
  return deleted;
}
