import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface EgressPointRow {
  sandboxId: string;
  sessionId: string;
  /** Plain JSON, as the worker wrote it; null: the sandbox is elsewhere. */
  point: unknown;
}

const COLUMNS = 'id AS sandbox_id, session_id, egress_point AS point';

/** Running sandboxes in whose network the broker listens. */
export async function listEgressPoints(db: Queryable, limit: number): Promise<EgressPointRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM sandboxes WHERE state = 'running' AND egress_point IS NOT NULL ORDER BY created_at LIMIT $1`,
    [limit],
  );
  return result.rows.map((row) => toCamel<EgressPointRow>(row as object));
}

/** One sandbox that is not gone. */
export async function findEgressPoint(db: Queryable, sandboxId: string): Promise<EgressPointRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM sandboxes WHERE id = $1 AND state NOT IN ('destroyed', 'lost')`,
    [sandboxId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<EgressPointRow>(result.rows[0] as object);
}
