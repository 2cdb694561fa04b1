import { securityEvent, securityEventListQuery } from '../../contracts/egress.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listSecurityEvents as readSecurityEvents } from '../../db/queries/security-events.ts';
import { endpoint } from '../endpoint.ts';
import { createdRange, pageRequest, renderPage } from '../paging.ts';
import { renderSecurityEvent } from '../render/egress.ts';

export const listSecurityEvents = endpoint({
  method: 'get',
  path: '/v1/security-events',
  tag: 'Egress',
  summary: 'What sandboxes of the team tried that they may not, newest first unless order=asc',
  query: securityEventListQuery,
  response: pageOf(securityEvent),
  async handle({ db, principal }, { query }) {
    const where = {
      teamId: principal.teamId,
      sessionId: query.session_id,
      kind: query.kind,
      created: createdRange(query),
    };
    return renderPage(await readSecurityEvents(db, where, pageRequest(query)), renderSecurityEvent);
  },
});
