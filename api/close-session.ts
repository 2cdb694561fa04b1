import { insertAudit } from '../db/queries/audit.ts';
import type { SessionRow } from '../db/queries/sessions.ts';
import { setClosing } from '../db/queries/sessions.ts';
import { appendInput } from './accept-events.ts';
import { actorOf } from './actor.ts';
import type { Context } from './endpoint.ts';

/** Archive or delete: no input from here on, and the workflow is told to end. The caller holds the row's lock. */
export async function closeSession(context: Context, row: SessionRow, how: 'archived' | 'deleted'): Promise<void> {
  const { db, principal, services } = context;
  await setClosing(db, row.id, how);
  await insertAudit(db, {
    teamId: row.teamId,
    actor: actorOf(principal),
    action: how === 'archived' ? 'session.archive' : 'session.delete',
    resource: row.id,
    sessionId: row.id,
  });
  if (row.status === 'terminated') return;
  await appendInput(db, row.id, { type: `session.${how}`, payload: {}, kind: 'terminate', message: { reason: how } });
  context.afterCommit(() => services.delivery.deliver(row.id));
}
