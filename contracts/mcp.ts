/** Zod-free. Which tools of MCP servers an agent has, and the names under which the ledger and models know them. */
import type { AgentDefinition, McpToolset, ToolPermission } from './definitions.ts';

/** Our own endpoint among a harness's MCP servers; no server of an agent may have this name. */
export const OWN_MCP_SERVER = 'longhaul';

/** A tool as its server tells it. */
export interface McpTool {
  name: string;
  description: string;
  input_schema: { type: 'object'; [key: string]: unknown };
}

/** What is known of a server of a session: its tools, or why there are none. */
export interface McpListing {
  server: string;
  tools: McpTool[];
  error: string | null;
}

/** A tool of one of the agent's servers. */
export interface McpPlace {
  server: string;
  tool: string;
}

export function mcpToolName({ server, tool }: McpPlace): string {
  return `mcp__${server}__${tool}`;
}

/** Names of servers have no double `_`: the first one after the prefix ends them. */
export function splitMcpToolName(name: string): McpPlace | undefined {
  const [, server, tool] = /^mcp__(.+?)__(.+)$/s.exec(name) ?? [];
  return server === undefined || tool === undefined ? undefined : { server, tool };
}

/** The place of a tool of this name; undefined when the agent has no such server. */
export function mcpPlaceOf(agent: AgentDefinition, name: string): McpPlace | undefined {
  const place = splitMcpToolName(name);
  return agent.mcp_servers.some((known) => known.name === place?.server) ? place : undefined;
}

/** What the agent's definition says of a tool; undefined: it is not enabled. */
export function mcpPermission(agent: AgentDefinition, { server, tool }: McpPlace): ToolPermission | undefined {
  const toolset = agent.tools.find(
    (entry): entry is McpToolset => entry.type === 'mcp_toolset' && entry.mcp_server_name === server,
  );
  if (toolset === undefined) return undefined;
  const config = toolset.configs.find((entry) => entry.name === tool) ?? toolset.default_config;
  return config.enabled ? config.permission_policy : undefined;
}

/** Names of the servers whose tools the agent may use. */
export function mcpServersInUse(agent: AgentDefinition): string[] {
  const named = new Set(agent.tools.flatMap((tool) => (tool.type === 'mcp_toolset' ? [tool.mcp_server_name] : [])));
  return agent.mcp_servers.map(({ name }) => name).filter((name) => named.has(name));
}
