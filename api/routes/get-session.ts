import { sessionPath } from '../../contracts/events.ts';
import { session } from '../../contracts/sessions.ts';
import { getSession as readSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { renderOneSession } from '../render/sessions.ts';

export const getSession = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}',
  tag: 'Sessions',
  summary: 'Get a session',
  params: sessionPath,
  response: session,
  async handle({ db, principal }, { params }) {
    return renderOneSession(db, await readSession(db, principal.teamId, params.session_id));
  },
});
