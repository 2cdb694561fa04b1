import { sessionPath } from '../../contracts/events.ts';
import { pageOf } from '../../contracts/paging.ts';
import { sessionResource } from '../../contracts/session-resources.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { renderResource } from '../session-resources.ts';

export const listSessionResources = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/resources',
  tag: 'Sessions',
  summary: 'List the repositories and files of a session; all of them, on one page',
  params: sessionPath,
  response: pageOf(sessionResource),
  async handle({ db, principal }, { params }) {
    const { resources } = await getSession(db, principal.teamId, params.session_id);
    return { data: resources.map(renderResource), next_page: null };
  },
});
