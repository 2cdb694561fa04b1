import { egressListQuery, egressRequest } from '../../contracts/egress.ts';
import { sessionPath } from '../../contracts/events.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listEgressRequests } from '../../db/queries/egress-requests.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { createdRange, pageRequest, renderPage } from '../paging.ts';
import { renderEgressRequest } from '../render/egress.ts';

export const listSessionEgress = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/egress',
  tag: 'Egress',
  summary: 'What the sandboxes of a session asked of the network, newest first unless order=asc',
  params: sessionPath,
  query: egressListQuery,
  response: pageOf(egressRequest),
  async handle({ db, principal }, { params, query }) {
    const session = await getSession(db, principal.teamId, params.session_id);
    const where = {
      sessionId: session.id,
      sandboxId: query.sandbox_id,
      state: query.state,
      decision: query.decision,
      host: query.host,
      credential: query.credential,
      created: createdRange(query),
    };
    return renderPage(await listEgressRequests(db, where, pageRequest(query)), renderEgressRequest);
  },
});
