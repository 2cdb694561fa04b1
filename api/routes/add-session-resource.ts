import { LonghaulError } from '../../contracts/error-codes.ts';
import { sessionPath } from '../../contracts/events.ts';
import { fileResource, sessionResourceAdd } from '../../contracts/session-resources.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import { getSession, setResources } from '../../db/queries/sessions.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { renderFileResource, resolveFile } from '../session-files.ts';

export const addSessionResource = endpoint({
  method: 'post',
  path: '/v1/sessions/{session_id}/resources',
  tag: 'Sessions',
  summary: 'Mount a file into the sandbox of a session, before its next tool call',
  params: sessionPath,
  body: sessionResourceAdd,
  response: fileResource,
  async handle({ db, principal }, { params, body }) {
    const { id, teamId, closingAt, resources } = await getSession(db, principal.teamId, params.session_id, {
      lock: true,
    });
    if (closingAt !== null) throw new LonghaulError('session_terminated', `session ${id} has ended`);
    const { environment } = await loadSessionForTurn(db, id);
    if (environment.type !== 'cloud') throw new LonghaulError('invalid_request', 'the session has no sandbox here');
    const added = await resolveFile(db, { teamId, environment, resources }, body, { field: '', late: true });
    await setResources(db, id, [...resources, added]);
    const details = { file_id: added.file_id, mount_path: added.mount_path };
    const actor = actorOf(principal);
    await insertAudit(db, {
      teamId,
      actor,
      action: 'session_resource.add',
      resource: added.id,
      sessionId: id,
      details,
    });
    return renderFileResource(added);
  },
});
