import type { SandboxState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface SandboxRow {
  id: string;
  sessionId: string;
  generation: number;
  provider: string;
  /** The provider's reference (plain JSON); null until the provider has answered. */
  ref: { provider: string; id: string; meta: Record<string, string> } | null;
  state: SandboxState;
}

const COLUMNS = 'id, session_id, generation, provider, ref, state';

/** Serialises all sandbox decisions of one session until the transaction ends. */
export async function lockSandboxOf(tx: Queryable, sessionId: string): Promise<void> {
  await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 1))', [sessionId]);
}

/** The session's newest sandbox that is not destroyed. */
export async function currentSandbox(db: Queryable, sessionId: string): Promise<SandboxRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM sandboxes WHERE session_id = $1 AND state <> 'destroyed' ORDER BY generation DESC LIMIT 1`,
    [sessionId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<SandboxRow>(result.rows[0] as object);
}

export async function getSandbox(db: Queryable, id: string): Promise<SandboxRow | undefined> {
  const result = await db.query(`SELECT ${COLUMNS} FROM sandboxes WHERE id = $1`, [id]);
  return result.rows[0] === undefined ? undefined : toCamel<SandboxRow>(result.rows[0] as object);
}

/** The row is written before the provider is asked, so a crash in between leaves a trace for the reaper. */
export async function insertSandbox(
  db: Queryable,
  row: { id: string; sessionId: string; provider: string; leaseMs: number },
): Promise<number> {
  const result = await db.query<{ generation: number }>(
    `INSERT INTO sandboxes (id, session_id, generation, provider, state, lease_expires_at)
     SELECT $1, $2, coalesce(max(generation), 0) + 1, $3, 'creating', now() + make_interval(secs => $4 / 1000.0)
     FROM sandboxes WHERE session_id = $2 RETURNING generation`,
    [row.id, row.sessionId, row.provider, row.leaseMs],
  );
  return result.rows[0]?.generation ?? 1;
}

/** Sets state (and ref) and renews the lease. */
export async function updateSandbox(
  db: Queryable,
  id: string,
  state: SandboxState,
  leaseMs: number,
  ref?: SandboxRow['ref'],
): Promise<void> {
  await db.query(
    `UPDATE sandboxes SET state = $2, ref = coalesce($3, ref),
       lease_expires_at = now() + make_interval(secs => $4 / 1000.0),
       destroyed_at = CASE WHEN $2 = 'destroyed' THEN now() END
     WHERE id = $1 AND state <> 'destroyed'`,
    [id, state, ref === undefined ? null : JSON.stringify(ref), leaseMs],
  );
}

/** Sandboxes that must go: their session ended, or nobody renewed the lease of a sandbox that is not paused. */
export async function listDoomedSandboxes(db: Queryable, limit: number): Promise<SandboxRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS.split(', ')
      .map((column) => `b.${column}`)
      .join(', ')}
     FROM sandboxes b JOIN sessions s ON s.id = b.session_id
     WHERE b.state <> 'destroyed' AND s.status = 'terminated' ORDER BY b.created_at LIMIT $1`,
    [limit],
  );
  return result.rows.map((row) => toCamel<SandboxRow>(row as object));
}

/** Running sandboxes whose lease ran out and where no command runs: to be paused (their files are kept). */
export async function listExpiredLeases(db: Queryable, limit: number): Promise<SandboxRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM sandboxes WHERE state = 'running' AND lease_expires_at < now()
       AND NOT EXISTS (SELECT 1 FROM effects e WHERE e.sandbox_id = sandboxes.id AND e.state = 'started')
     ORDER BY lease_expires_at LIMIT $1`,
    [limit],
  );
  return result.rows.map((row) => toCamel<SandboxRow>(row as object));
}

/** Provider ids of every sandbox that some session may still use. */
export async function listLiveSandboxRefs(db: Queryable): Promise<Set<string>> {
  const result = await db.query<{ id: string }>(
    `SELECT coalesce(ref->>'id', id) AS id FROM sandboxes WHERE state <> 'destroyed'`,
  );
  return new Set(result.rows.map((row) => row.id));
}
