import canonicalize from 'canonicalize';
import type { AgentUpdate } from '../../contracts/agents.ts';
import { agent, agentPath, agentUpdate } from '../../contracts/agents.ts';
import type { AgentDefinition } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { insertAgentVersion, lockAgent } from '../../db/queries/agents.ts';
import { resolveCaching, withoutCaching } from '../caching.ts';
import { patchMetadata, patchText, resolveMcpServers, resolveModel, resolveTools } from '../definitions.ts';
import { endpoint } from '../endpoint.ts';
import { resolveHarness, withoutHarness } from '../harness-fields.ts';
import { renderAgent } from '../render/agents.ts';
import { resolveSkills } from '../skills/resolve.ts';

export const updateAgent = endpoint({
  method: 'post',
  path: '/v1/agents/{agent_id}',
  tag: 'Agents',
  summary: 'Edit an agent: makes its next version',
  description: 'With `version`, refused with version_conflict unless it is the newest. Running sessions keep theirs.',
  params: agentPath,
  body: agentUpdate,
  response: agent,
  async handle({ db, principal }, { params, body }) {
    const current = await lockAgent(db, principal.teamId, params.agent_id);
    if (current.archivedAt !== null) throw new LonghaulError('archived', `agent ${current.id} is archived`);
    if (body.version !== undefined && body.version !== current.version) {
      throw new LonghaulError('version_conflict', `the agent is at version ${current.version}, not ${body.version}`);
    }
    const { skills } = body;
    const edited = {
      ...applyEdit(current.definition, body),
      ...(skills === undefined ? {} : { skills: await resolveSkills(db, principal.teamId, skills ?? []) }),
    };
    // An edit that changes nothing makes no version.
    if (canonicalize(edited) === canonicalize(current.definition)) return renderAgent(current);
    return renderAgent(await insertAgentVersion(db, current, edited));
  },
});

function applyEdit(before: AgentDefinition, edit: AgentUpdate): AgentDefinition {
  const tools = edit.tools === undefined ? before.tools : resolveTools(edit.tools ?? []);
  const servers = edit.mcp_servers === undefined ? before.mcp_servers : (edit.mcp_servers ?? []);
  return {
    ...withoutHarness(withoutCaching(before)),
    name: edit.name ?? before.name,
    description: patchText(before.description, edit.description),
    model: edit.model === undefined ? before.model : resolveModel(edit.model),
    system: patchText(before.system, edit.system),
    tools,
    mcp_servers: resolveMcpServers(servers, tools),
    metadata: patchMetadata(before.metadata, edit.metadata),
    ...resolveHarness(edit, before),
    ...resolveCaching(edit, before),
  };
}
