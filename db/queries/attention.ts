import type { Queryable } from '../pool.ts';

/** What of a session a person should look at. */
export interface Attention {
  pendingApprovalIds: string[];
  securityEvents: number;
}

const IDS_SHOWN = 20;

/** By session; absent: nothing. */
export async function attentionOf(db: Queryable, sessionIds: readonly string[]): Promise<Map<string, Attention>> {
  const result = await db.query<{ id: string; approvals: string[] | null; events: number }>(
    `SELECT s.id,
       (SELECT array_agg(a.id ORDER BY a.created_at, a.id) FROM (
          SELECT id, created_at FROM approvals WHERE session_id = s.id AND state = 'pending' AND expires_at > now()
          ORDER BY created_at, id LIMIT ${IDS_SHOWN}) a) AS approvals,
       (SELECT count(*) FROM security_events e WHERE e.session_id = s.id) AS events
     FROM unnest($1::text[]) AS s (id)`,
    [sessionIds],
  );
  return new Map(
    result.rows.map((row) => [row.id, { pendingApprovalIds: row.approvals ?? [], securityEvents: row.events }]),
  );
}
