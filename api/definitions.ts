import type { McpServerParam, ModelParam, ToolParam } from '../contracts/agents.ts';
import type { AgentDefinition, AgentTool, BuiltinToolConfig, McpToolset } from '../contracts/definitions.ts';
import { BUILTIN_TOOL_NAMES } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';

/** A model as stored: no shorthands, nothing null. */
export function resolveModel(param: ModelParam): AgentDefinition['model'] {
  if (typeof param === 'string') return { id: param };
  const effort = typeof param.effort === 'string' ? { type: param.effort } : param.effort;
  return {
    id: param.id,
    ...(effort === undefined || effort === null ? {} : { effort }),
    ...(param.speed === undefined || param.speed === null ? {} : { speed: param.speed }),
  };
}

/** Tools as stored: defaults applied, names unique. */
export function resolveTools(params: readonly ToolParam[]): AgentTool[] {
  const tools = params.map((param, index) => resolveTool(param, index));
  const taken = new Set<string>();
  for (const [index, tool] of tools.entries()) {
    for (const name of namesOf(tool)) {
      if (taken.has(name)) {
        throw new LonghaulError('invalid_request', `there are two tools named ${name}`, { field: `tools[${index}]` });
      }
      taken.add(name);
    }
  }
  return tools;
}

function resolveTool(param: ToolParam, index: number): AgentTool {
  switch (param.type) {
    case 'custom':
      return param;
    case 'agent_toolset_20260401':
      return resolveToolset(param, index);
    case 'mcp_toolset':
      return resolveMcpToolset(param, index);
  }
}

/** What a server does is not known to us: people are asked unless the agent's owner says otherwise. */
function resolveMcpToolset(param: Extract<ToolParam, { type: 'mcp_toolset' }>, index: number): McpToolset {
  const enabled = param.default_config?.enabled ?? true;
  const permission = param.default_config?.permission_policy ?? { type: 'always_ask' as const };
  const seen = new Set<string>();
  const configs = (param.configs ?? []).map((config, at) => {
    const field = `tools[${index}].configs[${at}].name`;
    if (seen.has(config.name)) {
      throw new LonghaulError('invalid_request', `${config.name} is configured twice`, { field });
    }
    seen.add(config.name);
    return {
      name: config.name,
      enabled: config.enabled ?? enabled,
      permission_policy: config.permission_policy ?? permission,
    };
  });
  return {
    type: 'mcp_toolset',
    mcp_server_name: param.mcp_server_name,
    default_config: { enabled, permission_policy: permission },
    configs,
  };
}

/** Servers as stored. Throws when two have one name, or a toolset names one that is not there. */
export function resolveMcpServers(
  params: readonly McpServerParam[],
  tools: readonly AgentTool[],
): AgentDefinition['mcp_servers'] {
  const names = new Set<string>();
  for (const [index, { name }] of params.entries()) {
    if (names.has(name)) {
      const field = `mcp_servers[${index}].name`;
      throw new LonghaulError('invalid_request', `there are two servers named ${name}`, { field });
    }
    names.add(name);
  }
  for (const [index, tool] of tools.entries()) {
    if (tool.type !== 'mcp_toolset' || names.has(tool.mcp_server_name)) continue;
    const field = `tools[${index}].mcp_server_name`;
    throw new LonghaulError('invalid_request', `${tool.mcp_server_name} is not in mcp_servers`, { field });
  }
  return params.map(({ name, url }) => ({ type: 'url', name, url }));
}

function resolveToolset(param: Extract<ToolParam, { type: 'agent_toolset_20260401' }>, index: number): AgentTool {
  const enabled = param.default_config?.enabled ?? true;
  const permission = param.default_config?.permission_policy ?? { type: 'always_allow' as const };
  const configs: BuiltinToolConfig[] = [];
  const seen = new Set<string>();
  for (const [at, config] of (param.configs ?? []).entries()) {
    const { name } = config;
    const field = `tools[${index}].configs[${at}].name`;
    if (seen.has(name)) throw new LonghaulError('invalid_request', `${name} is configured twice`, { field });
    seen.add(name);
    if (name === 'web_search') {
      if (config.enabled === false) continue;
      throw new LonghaulError('invalid_request', 'web_search is not supported yet', { field });
    }
    configs.push({
      type: name,
      name,
      enabled: config.enabled ?? enabled,
      permission_policy: config.permission_policy ?? permission,
    });
  }
  return { type: 'agent_toolset_20260401', default_config: { enabled, permission_policy: permission }, configs };
}

function namesOf(tool: AgentTool): string[] {
  switch (tool.type) {
    case 'custom':
      return [tool.name];
    case 'agent_toolset_20260401':
      return BUILTIN_TOOL_NAMES.filter(
        (name) => tool.configs.find((config) => config.name === name)?.enabled ?? tool.default_config.enabled,
      );
    case 'mcp_toolset':
      return [`mcp_toolset of ${tool.mcp_server_name}`];
  }
}

/** Metadata after a patch: strings set, nulls remove, absent keys stay. */
export function patchMetadata(
  before: Record<string, string>,
  patch: Record<string, string | null> | null | undefined,
): Record<string, string> {
  const after = Object.fromEntries(
    Object.entries({ ...before, ...patch }).filter((pair): pair is [string, string] => pair[1] !== null),
  );
  if (Object.keys(after).length > LIMITS.metadataPairs) {
    throw new LonghaulError('invalid_request', `at most ${LIMITS.metadataPairs} pairs`, { field: 'metadata' });
  }
  return after;
}

/** `undefined` keeps, null and '' clear. */
export function patchText(before: string | null, patch: string | null | undefined): string | null {
  if (patch === undefined) return before;
  return patch === '' ? null : patch;
}
