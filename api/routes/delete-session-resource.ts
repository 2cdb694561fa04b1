import { LonghaulError } from '../../contracts/error-codes.ts';
import { sessionResourceDeleted, sessionResourcePath } from '../../contracts/session-resources.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { getSession, setResources } from '../../db/queries/sessions.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireResource } from '../session-resources.ts';

export const deleteSessionResource = endpoint({
  method: 'delete',
  path: '/v1/sessions/{session_id}/resources/{resource_id}',
  tag: 'Sessions',
  summary: 'Mount a file no more; what is in the sandbox already stays there',
  params: sessionResourcePath,
  response: sessionResourceDeleted,
  async handle({ db, principal }, { params }) {
    const session = await getSession(db, principal.teamId, params.session_id, { lock: true });
    const { id, type } = requireResource(session, params.resource_id);
    if (session.closingAt !== null) throw new LonghaulError('session_terminated', `session ${session.id} has ended`);
    if (type !== 'file') {
      throw new LonghaulError('invalid_request', 'a session keeps its repositories', { field: 'resource_id' });
    }
    await setResources(
      db,
      session.id,
      session.resources.filter((resource) => resource.id !== id),
    );
    const { teamId } = session;
    const actor = actorOf(principal);
    await insertAudit(db, { teamId, actor, action: 'session_resource.delete', resource: id, sessionId: session.id });
    return { id, type: 'session_resource_deleted' as const };
  },
});
