/** Zod-free: what a model is told of an agent’s tools, whatever loop drives it: prompts, the MCP endpoint and permissions read this. */
import type { AgentDefinition, AgentToolset, BuiltinToolName } from './definitions.ts';
import { BUILTIN_TOOL_NAMES } from './definitions.ts';
import { LIMITS } from './limits.ts';
import type { McpListing } from './mcp.ts';
import { mcpPermission, mcpToolName } from './mcp.ts';

/** A tool as the model is told about it. */
export interface ToolDefinition {
  name: string;
  description: string;
  input_schema: { type: 'object'; [key: string]: unknown };
}

const string = (description: string): object => ({ type: 'string', description });
const integer = (description: string): object => ({ type: 'integer', description });
const object = (properties: Record<string, object>, required: string[]): ToolDefinition['input_schema'] => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
});

/** The built-in tools; argument names are those of the Managed Agents toolset. */
export const BUILTIN_TOOLS: Record<BuiltinToolName, ToolDefinition> = {
  bash: {
    name: 'bash',
    description: `Runs a command with bash in the sandbox, starting in /workspace. Each call is a new shell; files persist and background servers stay up. Output beyond ${LIMITS.toolOutputBytes} bytes is saved to a file and shortened.`,
    input_schema: object(
      {
        command: string('The command line.'),
        timeout_ms: integer(`Time limit; default ${LIMITS.toolTimeoutMs}, at most ${LIMITS.toolTimeoutMaxMs}.`),
      },
      ['command'],
    ),
  },
  edit: {
    name: 'edit',
    description: 'Replaces text in a file. old_string must occur exactly once unless replace_all is true.',
    input_schema: object(
      {
        file_path: string('Absolute path, or relative to /workspace.'),
        old_string: string('The text to replace, exactly as it stands in the file.'),
        new_string: string('The text to put there.'),
        replace_all: { type: 'boolean', description: 'Replace every occurrence.' },
      },
      ['file_path', 'old_string', 'new_string'],
    ),
  },
  glob: {
    name: 'glob',
    description: 'Lists files whose path matches a pattern such as **/*.ts, newest first.',
    input_schema: object({ pattern: string('The pattern.'), path: string('Folder to search; default /workspace.') }, [
      'pattern',
    ]),
  },
  grep: {
    name: 'grep',
    description: 'Searches file contents with a regular expression; answers path:line:text.',
    input_schema: object(
      { pattern: string('Extended regular expression.'), path: string('File or folder; default /workspace.') },
      ['pattern'],
    ),
  },
  read: {
    name: 'read',
    description: 'Reads a text file, with line numbers.',
    input_schema: object(
      {
        file_path: string('Absolute path, or relative to /workspace.'),
        view_range: {
          type: 'array',
          items: { type: 'integer' },
          minItems: 2,
          maxItems: 2,
          description: 'First and last line, from 1; -1 as the last means to the end.',
        },
      },
      ['file_path'],
    ),
  },
  web_fetch: {
    name: 'web_fetch',
    description: 'Fetches a URL through the egress rules of the environment.',
    input_schema: object({ url: string('The http or https URL.') }, ['url']),
  },
  write: {
    name: 'write',
    description: 'Writes a file, replacing what was there; makes missing folders.',
    input_schema: object(
      { file_path: string('Absolute path, or relative to /workspace.'), content: string('The whole content.') },
      ['file_path', 'content'],
    ),
  },
};

export function toolsetOf(agent: AgentDefinition): AgentToolset | undefined {
  return agent.tools.find((tool) => tool.type === 'agent_toolset_20260401');
}

/** True when the agent may use this built-in tool. web_fetch needs an explicit config: it is off by default. */
export function isEnabled(toolset: AgentToolset, name: BuiltinToolName): boolean {
  const config = toolset.configs.find((entry) => entry.name === name);
  if (config !== undefined) return config.enabled;
  return name === 'web_fetch' ? false : toolset.default_config.enabled;
}

/** True when the agent can look into its workspace. */
export function hasHands(agent: AgentDefinition): boolean {
  const toolset = toolsetOf(agent);
  return toolset !== undefined && (['bash', 'read', 'write'] as const).some((name) => isEnabled(toolset, name));
}

/** Names that every provider takes. */
const MODEL_TOOL_NAME = /^[A-Za-z0-9_-]{1,128}$/;

/** The agent's tools in an order that never changes, so that provider caches hold: built-in by name, then custom, then those of MCP servers. */
export function toolDefinitions(agent: AgentDefinition, listings: readonly McpListing[] = []): ToolDefinition[] {
  const toolset = toolsetOf(agent);
  const builtin =
    toolset === undefined
      ? []
      : BUILTIN_TOOL_NAMES.filter((name) => isEnabled(toolset, name)).map((name) => BUILTIN_TOOLS[name]);
  const custom = agent.tools
    .flatMap((tool) => (tool.type === 'custom' ? [tool] : []))
    .map(({ name, description, input_schema }) => ({ name, description, input_schema }))
    .toSorted(byName);
  const taken = new Set(custom.map(({ name }) => name));
  const remote = listings
    .flatMap((listing) => enabledMcpTools(agent, listing).map((tool) => renamed(listing.server, tool)))
    .filter(({ name }) => MODEL_TOOL_NAME.test(name) && !taken.has(name))
    .toSorted(byName);
  return [...builtin, ...custom, ...remote];
}

/** Those tools of a server that the agent's definition lets it use. */
export function enabledMcpTools(agent: AgentDefinition, { server, tools }: McpListing): ToolDefinition[] {
  return tools.filter(({ name }) => mcpPermission(agent, { server, tool: name }) !== undefined).toSorted(byName);
}

function renamed(server: string, tool: ToolDefinition): ToolDefinition {
  return { ...tool, name: mcpToolName({ server, tool: tool.name }) };
}

function byName(a: ToolDefinition, b: ToolDefinition): number {
  return a.name < b.name ? -1 : 1;
}
