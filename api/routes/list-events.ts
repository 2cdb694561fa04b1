import { eventListQuery, sessionEvent, sessionPath } from '../../contracts/events.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listEvents as readEvents } from '../../db/queries/event-pages.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { createdRange, pageRequest, renderPage } from '../paging.ts';
import { renderEvent } from '../render/events.ts';

export const listEvents = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/events',
  tag: 'Events',
  summary: 'Read the log of a session, oldest first unless order=desc',
  params: sessionPath,
  query: eventListQuery,
  response: pageOf(sessionEvent),
  async handle({ db, principal }, { params, query }) {
    const session = await getSession(db, principal.teamId, params.session_id);
    const where = { sessionId: session.id, types: query['types[]'], ...createdRange(query) };
    return renderPage(await readEvents(db, where, pageRequest(query)), renderEvent);
  },
});
