import { sessionPath } from '../../contracts/events.ts';
import { sessionDeleted } from '../../contracts/sessions.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { closeSession } from '../close-session.ts';
import { endpoint } from '../endpoint.ts';

export const deleteSession = endpoint({
  method: 'delete',
  path: '/v1/sessions/{session_id}',
  tag: 'Sessions',
  summary: 'End a session for good and hide it',
  params: sessionPath,
  response: sessionDeleted,
  async handle(context, { params }) {
    const row = await getSession(context.db, context.principal.teamId, params.session_id, { lock: true });
    await closeSession(context, row, 'deleted');
    return { id: row.id, type: 'session_deleted' as const };
  },
});
