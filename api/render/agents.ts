import type { AgentResource, SessionAgentResource } from '../../contracts/agents.ts';
import { DEFAULT_PROMPT_CACHING } from '../../contracts/caching.ts';
import type { AgentDefinition } from '../../contracts/definitions.ts';
import type { AgentRow } from '../../db/queries/agents.ts';
import { isoOrNull } from './times.ts';

export function renderAgent(row: AgentRow): AgentResource {
  return {
    ...renderDefinition({ id: row.id, version: row.version, definition: row.definition }),
    metadata: row.definition.metadata,
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    archived_at: isoOrNull(row.archivedAt),
  };
}

/** The part of an agent that a session keeps. */
export function renderDefinition(agent: {
  id: string;
  version: number;
  definition: AgentDefinition;
}): SessionAgentResource {
  const { definition } = agent;
  return {
    id: agent.id,
    type: 'agent',
    version: agent.version,
    name: definition.name,
    description: definition.description,
    model: definition.model,
    system: definition.system,
    tools: definition.tools.map((tool) => ({ ...tool })),
    mcp_servers: definition.mcp_servers,
    skills: definition.skills,
    multiagent: definition.multiagent,
    execution_identity: { type: 'service_account' },
    harness: definition.harness,
    placement: definition.placement ?? 'inline',
    harness_agent: definition.harness_agent ?? null,
    prompt_caching: definition.prompt_caching ?? DEFAULT_PROMPT_CACHING,
    response_cache: definition.response_cache ?? null,
  };
}
