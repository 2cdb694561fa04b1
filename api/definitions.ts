import type { ModelParam, ToolParam } from '../contracts/agents.ts';
import type { AgentDefinition, AgentTool, BuiltinToolConfig } from '../contracts/definitions.ts';
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
  const tools = params.map((param, index) => (param.type === 'custom' ? param : resolveToolset(param, index)));
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
      return [];
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
