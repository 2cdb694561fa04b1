import type { Queryable } from '../pool.ts';

/** One failed attempt at a place of a session (a step, a tool call). */
export interface FailedAttempt {
  sessionId: string;
  place: string;
  /** When it was due: the time between the failure before it and this one was waited on purpose. */
  dueAtMs: number;
  /** How long it ran. */
  ranMs: number;
}

/**
 * Adds what an attempt saw of an outage and returns how long it has been seen in all. What lies between the time an
 * attempt was due and its start is left out: then no worker was there, and nobody knows what was away.
 */
export async function addOutage(db: Queryable, attempt: FailedAttempt): Promise<number> {
  const result = await db.query<{ away_ms: number }>(
    `INSERT INTO outages AS o (session_id, place, away_ms, failed_at) VALUES ($1, $2, $3, now())
     ON CONFLICT (session_id, place) DO UPDATE
       SET failed_at = excluded.failed_at, away_ms = o.away_ms + excluded.away_ms
         + greatest(0, extract(epoch FROM to_timestamp($4 / 1000.0) - o.failed_at) * 1000)::bigint
     RETURNING away_ms`,
    [attempt.sessionId, attempt.place, Math.round(attempt.ranMs), attempt.dueAtMs],
  );
  return result.rows[0]?.away_ms ?? 0;
}

/** A turn that is over waits for nothing any more. */
export async function clearOutages(tx: Queryable, sessionId: string): Promise<void> {
  await tx.query('DELETE FROM outages WHERE session_id = $1', [sessionId]);
}
