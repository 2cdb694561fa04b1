import type { Page, PageRequest, CreatedRange } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { insertAudit } from './audit.ts';
import { appendEvents, type EventDraft } from './events.ts';

/** What was tried. */
export type SecurityEventKind =
  | 'placeholder_misused'
  | 'placeholder_foreign'
  | 'placeholder_unknown'
  | 'placeholder_revoked'
  | 'address_refused'
  | 'host_mismatch'
  | 'path_ambiguous';

export interface SecurityEventRow {
  id: string;
  teamId: string;
  /** null: a sandbox of an E2B program. */
  sessionId: string | null;
  sandboxId: string | null;
  kind: SecurityEventKind;
  message: string;
  host: string | null;
  egressRequestId: string | null;
  details: Record<string, unknown>;
  createdAt: Date;
}

const COLUMNS = 'id, team_id, session_id, sandbox_id, kind, message, host, egress_request_id, details, created_at';

/** The row, the event in the session's log and the audit, in one transaction; a repeat under the same id adds nothing. */
export async function insertSecurityEvent(tx: Queryable, event: Omit<SecurityEventRow, 'createdAt'>): Promise<void> {
  // The session's lock comes first, as in every transaction about one.
  if (event.sessionId !== null) await tx.query('SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE', [event.sessionId]);
  const inserted = await tx.query(
    `INSERT INTO security_events (id, team_id, session_id, sandbox_id, kind, message, host, egress_request_id, details)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING`,
    [
      event.id,
      event.teamId,
      event.sessionId,
      event.sandboxId,
      event.kind,
      event.message,
      event.host,
      event.egressRequestId,
      JSON.stringify(event.details),
    ],
  );
  if (inserted.rowCount === 0) return;
  if (event.sessionId !== null) await appendEvents(tx, event.sessionId, [logged(event)]);
  await insertAudit(tx, {
    teamId: event.teamId,
    actor: `sandbox:${event.sandboxId ?? 'unknown'}`,
    action: `security.${event.kind}`,
    resource: event.id,
    sessionId: event.sessionId ?? undefined,
    decision: 'deny',
    details: { host: event.host, egress_request_id: event.egressRequestId, ...event.details },
  });
}

function logged(event: Omit<SecurityEventRow, 'createdAt'>): EventDraft {
  return {
    type: 'session.security_event',
    dedupeKey: `security/${event.id}`,
    payload: {
      security_event_id: event.id,
      kind: event.kind,
      message: event.message,
      host: event.host,
      egress_request_id: event.egressRequestId,
      details: event.details,
    },
  };
}

export async function listSecurityEvents(
  db: Queryable,
  where: { teamId: string; sessionId?: string | undefined; kind?: string | undefined; created: CreatedRange },
  page: PageRequest,
): Promise<Page<SecurityEventRow>> {
  const filter = new Filter()
    .add('team_id = ?', where.teamId)
    .add('session_id = ?', where.sessionId)
    .add('kind = ?', where.kind)
    .addCreated(where.created);
  return selectPage<SecurityEventRow>(db, `SELECT ${COLUMNS} FROM security_events`, filter, page);
}
