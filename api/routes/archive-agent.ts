import { agent, agentPath } from '../../contracts/agents.ts';
import { archiveAgent as archive } from '../../db/queries/agents.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { renderAgent } from '../render/agents.ts';

export const archiveAgent = endpoint({
  method: 'post',
  path: '/v1/agents/{agent_id}/archive',
  tag: 'Agents',
  summary: 'Archive an agent: no new sessions; running ones go on',
  params: agentPath,
  response: agent,
  async handle({ db, principal }, { params }) {
    const row = await archive(db, principal.teamId, params.agent_id);
    await insertAudit(db, { teamId: row.teamId, actor: actorOf(principal), action: 'agent.archive', resource: row.id });
    return renderAgent(row);
  },
});
