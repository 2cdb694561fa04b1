import { agent, agentGetQuery, agentPath } from '../../contracts/agents.ts';
import { getAgent as readAgent } from '../../db/queries/agents.ts';
import { endpoint } from '../endpoint.ts';
import { renderAgent } from '../render/agents.ts';

export const getAgent = endpoint({
  method: 'get',
  path: '/v1/agents/{agent_id}',
  tag: 'Agents',
  summary: 'Get an agent: its newest version, or the given one',
  params: agentPath,
  query: agentGetQuery,
  response: agent,
  async handle({ db, principal }, { params, query }) {
    return renderAgent(await readAgent(db, principal.teamId, params.agent_id, query.version));
  },
});
