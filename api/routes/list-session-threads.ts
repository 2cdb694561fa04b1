import { sessionPath } from '../../contracts/events.ts';
import { pageOf } from '../../contracts/paging.ts';
import { sessionThread, threadListQuery } from '../../contracts/sessions.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { renderOneSession } from '../render/sessions.ts';
import { renderPrimaryThread } from '../render/threads.ts';

export const listSessionThreads = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/threads',
  tag: 'Sessions',
  summary: 'List the threads of a session: its primary one',
  params: sessionPath,
  query: threadListQuery,
  response: pageOf(sessionThread),
  async handle({ db, principal }, { params, query }) {
    const session = await renderOneSession(db, await getSession(db, principal.teamId, params.session_id));
    const statuses = query['statuses[]'];
    const wanted = statuses === undefined || statuses.includes(session.status);
    return { data: wanted ? [renderPrimaryThread(session)] : [], next_page: null };
  },
});
