import type { Queryable } from '../pool.ts';

export interface AuditEntry {
  teamId: string;
  /** `user:<id>`, `api_key:<id>`, `workflow`, … */
  actor: string;
  /** `<resource>.<verb>`, for example `approval.decide`. */
  action: string;
  /** Id of what was acted on. */
  resource: string;
  sessionId?: string | undefined;
  decision?: string | undefined;
  digest?: string | undefined;
  /** Nothing secret. */
  details?: Record<string, unknown> | undefined;
}

/** Must run in the transaction of the state change it tells of (invariant 11). */
export async function insertAudit(tx: Queryable, entry: AuditEntry): Promise<void> {
  await tx.query(
    `INSERT INTO audit (team_id, actor, action, resource, session_id, decision, digest, details)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [
      entry.teamId,
      entry.actor,
      entry.action,
      entry.resource,
      entry.sessionId ?? null,
      entry.decision ?? null,
      entry.digest ?? null,
      JSON.stringify(entry.details ?? {}),
    ],
  );
}
