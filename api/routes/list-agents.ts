import { agent, agentListQuery } from '../../contracts/agents.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listAgents as readAgents } from '../../db/queries/agents.ts';
import { endpoint } from '../endpoint.ts';
import { createdRange, pageRequest, renderPage } from '../paging.ts';
import { renderAgent } from '../render/agents.ts';

export const listAgents = endpoint({
  method: 'get',
  path: '/v1/agents',
  tag: 'Agents',
  summary: 'List agents, newest first',
  query: agentListQuery,
  response: pageOf(agent),
  async handle({ db, principal }, { query }) {
    const where = {
      teamId: principal.teamId,
      includeArchived: query.include_archived ?? false,
      ...createdRange(query),
    };
    return renderPage(await readAgents(db, where, pageRequest(query)), renderAgent);
  },
});
