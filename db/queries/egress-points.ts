import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface EgressPointRow {
  sandboxId: string;
  /** null: a sandbox of an E2B program. */
  sessionId: string | null;
  /** Plain JSON, as the worker wrote it; null: the sandbox is elsewhere. */
  point: unknown;
}

const COLUMNS = 'id AS sandbox_id, session_id, egress_point AS point';

const E2B_COLUMNS = 'id AS sandbox_id, NULL::text AS session_id, egress_point AS point';

/** Running sandboxes in whose network the broker listens. */
export async function listEgressPoints(db: Queryable, limit: number): Promise<EgressPointRow[]> {
  const result = await db.query(
    `(SELECT ${COLUMNS} FROM sandboxes WHERE state = 'running' AND egress_point IS NOT NULL ORDER BY created_at LIMIT $1)
     UNION ALL
     (SELECT ${E2B_COLUMNS} FROM e2b_sandboxes WHERE state = 'running' AND egress_point IS NOT NULL LIMIT $1)`,
    [limit],
  );
  return result.rows.map((row) => toCamel<EgressPointRow>(row as object));
}

/** One sandbox that is not gone. */
export async function findEgressPoint(db: Queryable, sandboxId: string): Promise<EgressPointRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM sandboxes WHERE id = $1 AND state NOT IN ('destroyed', 'lost')
     UNION ALL
     SELECT ${E2B_COLUMNS} FROM e2b_sandboxes WHERE id = $1 AND state = 'running' AND egress_point IS NOT NULL`,
    [sandboxId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<EgressPointRow>(result.rows[0] as object);
}
