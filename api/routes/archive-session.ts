import { sessionPath } from '../../contracts/events.ts';
import { session } from '../../contracts/sessions.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { closeSession } from '../close-session.ts';
import { endpoint } from '../endpoint.ts';
import { renderOneSession } from '../render/sessions.ts';

export const archiveSession = endpoint({
  method: 'post',
  path: '/v1/sessions/{session_id}/archive',
  tag: 'Sessions',
  summary: 'End a session for good; it stays readable',
  params: sessionPath,
  response: session,
  async handle(context, { params }) {
    const { db, principal } = context;
    const row = await getSession(db, principal.teamId, params.session_id, { lock: true });
    if (row.archivedAt === null) await closeSession(context, row, 'archived');
    return renderOneSession(db, await getSession(db, principal.teamId, row.id));
  },
});
