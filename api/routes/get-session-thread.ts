import { LonghaulError } from '../../contracts/error-codes.ts';
import { sessionThread, threadPath } from '../../contracts/sessions.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { renderOneSession } from '../render/sessions.ts';
import { primaryThreadId, renderPrimaryThread } from '../render/threads.ts';

export const getSessionThread = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/threads/{thread_id}',
  tag: 'Sessions',
  summary: 'Get a thread of a session',
  params: threadPath,
  response: sessionThread,
  async handle({ db, principal }, { params }) {
    const row = await getSession(db, principal.teamId, params.session_id);
    if (params.thread_id !== primaryThreadId(row.id)) {
      throw new LonghaulError('not_found', `thread ${params.thread_id} does not exist`);
    }
    return renderPrimaryThread(await renderOneSession(db, row));
  },
});
