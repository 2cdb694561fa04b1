import { sessionResource, sessionResourcePath } from '../../contracts/session-resources.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { renderResource, requireResource } from '../session-resources.ts';

export const getSessionResource = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/resources/{resource_id}',
  tag: 'Sessions',
  summary: 'Get a repository or a mounted file of a session',
  params: sessionResourcePath,
  response: sessionResource,
  async handle({ db, principal }, { params }) {
    return renderResource(
      requireResource(await getSession(db, principal.teamId, params.session_id), params.resource_id),
    );
  },
});
