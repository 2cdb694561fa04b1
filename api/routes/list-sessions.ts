import { bidirectionalPageOf } from '../../contracts/paging.ts';
import { session, sessionListQuery } from '../../contracts/sessions.ts';
import { listSessions as readSessions } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { createdRange, pageRequest } from '../paging.ts';
import { renderSessions } from '../render/sessions.ts';

export const listSessions = endpoint({
  method: 'get',
  path: '/v1/sessions',
  tag: 'Sessions',
  summary: 'List sessions, newest first unless order=asc',
  query: sessionListQuery,
  response: bidirectionalPageOf(session),
  async handle({ db, principal }, { query }) {
    const where = {
      teamId: principal.teamId,
      agentId: query.agent_id,
      agentVersion: query.agent_version,
      deploymentId: query.deployment_id,
      statuses: query['statuses[]'],
      label: query.label,
      repo: query.repo,
      includeArchived: query.include_archived ?? false,
      ...createdRange(query),
    };
    const page = await readSessions(db, where, pageRequest(query));
    return { data: await renderSessions(db, page.data), next_page: page.nextPage, prev_page: page.prevPage };
  },
});
