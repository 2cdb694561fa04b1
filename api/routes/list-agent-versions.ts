import { agent, agentPath, agentVersionsQuery } from '../../contracts/agents.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listAgentVersions as readVersions } from '../../db/queries/agents.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderAgent } from '../render/agents.ts';

export const listAgentVersions = endpoint({
  method: 'get',
  path: '/v1/agents/{agent_id}/versions',
  tag: 'Agents',
  summary: 'List the versions of an agent, newest first',
  params: agentPath,
  query: agentVersionsQuery,
  response: pageOf(agent),
  async handle({ db, principal }, { params, query }) {
    const where = { teamId: principal.teamId, id: params.agent_id };
    return renderPage(await readVersions(db, where, pageRequest(query)), renderAgent);
  },
});
