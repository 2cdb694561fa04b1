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

/**
 * Removes calls that nobody makes any more: their gateway died, and no later attempt took them over. Asked for again, such
 * a call would be made anew in any case. Returns how many.
 */
export async function deleteAbandonedCalls(db: Queryable, batch: number): Promise<number> {
  // The outer conditions are looked at again under the row's lock: a call that is just taken over stays.
  return deleteInBatches(
    db,
    `DELETE FROM model_calls WHERE state = 'in_flight' AND lease_expires_at < now() - make_interval(secs => $1 / 1000.0)
       AND idempotency_key IN (
         SELECT idempotency_key FROM model_calls
         WHERE state = 'in_flight' AND lease_expires_at < now() - make_interval(secs => $1 / 1000.0) LIMIT $2)`,
    { olderThanMs: LIMITS.abandonedCallMs, batch },
  );
}

/** Removes virtual keys of sessions that have been of no use for long; revoked ones expire as well. Returns how many. */
export async function deleteExpiredKeys(db: Queryable, batch: number): Promise<number> {
  return deleteInBatches(
    db,
    `DELETE FROM virtual_keys WHERE id IN (
       SELECT id FROM virtual_keys
       WHERE expires_at < now() - make_interval(secs => $1 / 1000.0) AND session_id IS NOT NULL
       ORDER BY expires_at LIMIT $2)`,
    { olderThanMs: LIMITS.expiredKeyKeptMs, batch },
  );
}

/** The same for the tokens of harnesses. */
export async function deleteExpiredTokens(db: Queryable, batch: number): Promise<number> {
  return deleteInBatches(
    db,
    `DELETE FROM session_tokens WHERE id IN (
       SELECT id FROM session_tokens
       WHERE expires_at < now() - make_interval(secs => $1 / 1000.0) ORDER BY expires_at LIMIT $2)`,
    { olderThanMs: LIMITS.expiredKeyKeptMs, batch },
  );
}

/** Removes what sandboxes that are gone for long asked of the network. Returns how many. */
export async function deleteOldEgressRequests(db: Queryable, batch: number): Promise<number> {
  return deleteInBatches(
    db,
    `DELETE FROM egress_requests WHERE id IN (
       SELECT r.id FROM sandboxes b JOIN egress_requests r ON r.sandbox_id = b.id
       WHERE b.state = 'destroyed' AND b.destroyed_at < now() - make_interval(secs => $1 / 1000.0) LIMIT $2)`,
    { olderThanMs: LIMITS.egressAuditKeptMs, batch },
  );
}

/** The same for sandboxes of E2B programs, which leave no row behind: what they asked goes by its own age. */
export async function deleteOldProgramRequests(db: Queryable, batch: number): Promise<number> {
  return deleteInBatches(
    db,
    `DELETE FROM egress_requests WHERE id IN (
       SELECT r.id FROM egress_requests r
       WHERE r.session_id IS NULL AND r.created_at < now() - make_interval(secs => $1 / 1000.0)
         AND NOT EXISTS (SELECT 1 FROM e2b_sandboxes b WHERE b.id = r.sandbox_id AND b.state <> 'ended') LIMIT $2)`,
    { olderThanMs: LIMITS.egressAuditKeptMs, batch },
  );
}

/** Removes security events that are old; those in the logs of sessions stay with them. */
export async function deleteOldSecurityEvents(db: Queryable, batch: number): Promise<number> {
  return deleteInBatches(
    db,
    `DELETE FROM security_events WHERE id IN (
       SELECT id FROM security_events WHERE created_at < now() - make_interval(secs => $1 / 1000.0) LIMIT $2)`,
    { olderThanMs: LIMITS.securityEventsKeptMs, batch },
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
