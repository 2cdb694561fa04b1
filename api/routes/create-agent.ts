import { agent, agentCreate } from '../../contracts/agents.ts';
import { insertAgent } from '../../db/queries/agents.ts';
import { resolveCaching } from '../caching.ts';
import { resolveMcpServers, resolveModel, resolveTools } from '../definitions.ts';
import { endpoint } from '../endpoint.ts';
import { resolveHarness } from '../harness-fields.ts';
import { renderAgent } from '../render/agents.ts';
import { resolveSkills } from '../skills/resolve.ts';

export const createAgent = endpoint({
  method: 'post',
  path: '/v1/agents',
  tag: 'Agents',
  summary: 'Create an agent (its version 1)',
  body: agentCreate,
  response: agent,
  async handle({ db, principal }, { body }) {
    const tools = resolveTools(body.tools ?? []);
    const row = await insertAgent(
      db,
      { teamId: principal.teamId, createdBy: principal.userId },
      {
        name: body.name,
        description: body.description ?? null,
        model: resolveModel(body.model),
        system: body.system ?? null,
        tools,
        mcp_servers: resolveMcpServers(body.mcp_servers ?? [], tools),
        skills: await resolveSkills(db, principal.teamId, body.skills ?? []),
        multiagent: null,
        metadata: body.metadata ?? {},
        ...resolveHarness(body),
        ...resolveCaching(body),
      },
    );
    return renderAgent(row);
  },
});
