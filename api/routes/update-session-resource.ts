import { LonghaulError } from '../../contracts/error-codes.ts';
import { sessionResource, sessionResourcePath, sessionResourceUpdate } from '../../contracts/session-resources.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { renderResource, replaceToken, requireResource } from '../session-resources.ts';

export const updateSessionResource = endpoint({
  method: 'post',
  path: '/v1/sessions/{session_id}/resources/{resource_id}',
  tag: 'Sessions',
  summary: 'Give a repository another token; the running session uses it from now on',
  params: sessionResourcePath,
  body: sessionResourceUpdate,
  response: sessionResource,
  holdsSecrets: true,
  async handle({ db, principal, services }, { params, body }) {
    const session = await getSession(db, principal.teamId, params.session_id, { lock: true });
    const resource = requireResource(session, params.resource_id);
    if (session.closingAt !== null) throw new LonghaulError('session_terminated', `session ${session.id} has ended`);
    if (resource.type === 'file' || resource.credential === null) {
      const field = 'authorization_token';
      throw new LonghaulError(
        'invalid_request',
        'only a repository that was given with one has one; open a session with it',
        {
          field,
        },
      );
    }
    const { vaultKeys } = services;
    await replaceToken(db, { principal, vaultKeys }, resource.credential, body.authorization_token);
    return renderResource(resource);
  },
});
