import { z } from 'zod';
import { promptCaching, promptCachingParam, responseCache, responseCacheParam } from './agent-cache.ts';
import { BUILTIN_TOOL_NAMES } from './definitions.ts';
import { AGENT_HARNESSES, PLACEMENTS } from './harnesses.ts';
import { descriptionField, metadata, metadataPatch, nameField, notSupportedYet, time } from './fields.ts';
import { LIMITS } from './limits.ts';
import { OWN_MCP_SERVER } from './mcp.ts';
import { boolParam, createdFromTo, intParam, pageParams } from './paging.ts';
import { serverUrl } from './vaults.ts';

const permissionPolicy = z.strictObject({ type: z.enum(['always_allow', 'always_ask', 'auto']) });
const effort = z.enum(['low', 'medium', 'high', 'xhigh', 'max']);
const modelId = z.string().trim().min(1).max(LIMITS.nameChars);

export const modelParam = z.union([
  modelId,
  z.strictObject({
    id: modelId,
    effort: z.union([effort, z.strictObject({ type: effort })]).nullish(),
    speed: z.enum(['standard', 'fast']).nullish(),
    inference_geo: notSupportedYet(),
  }),
]);

const toolConfigParam = z.strictObject({
  name: z.enum([...BUILTIN_TOOL_NAMES, 'web_search']),
  type: z.string().optional(),
  enabled: z.boolean().nullish(),
  permission_policy: permissionPolicy.nullish(),
  allowed_domains: notSupportedYet(),
  blocked_domains: notSupportedYet(),
  max_content_tokens: notSupportedYet(),
  url_sources: notSupportedYet(),
  user_location: notSupportedYet(),
});
const toolsetParam = z.strictObject({
  type: z.literal('agent_toolset_20260401'),
  configs: z.array(toolConfigParam).max(32).nullish(),
  default_config: z
    .strictObject({ enabled: z.boolean().nullish(), permission_policy: permissionPolicy.nullish() })
    .nullish(),
});
const customTool = z.strictObject({
  type: z.literal('custom'),
  name: z.string().regex(/^[A-Za-z0-9_-]{1,128}$/, 'must be 1 to 128 letters, digits, _ or -'),
  description: z.string().min(1).max(10_000),
  input_schema: z.looseObject({ type: z.literal('object') }),
});
const mcpConfig = { enabled: z.boolean().nullish(), permission_policy: permissionPolicy.nullish() };
const mcpToolsetParam = z.strictObject({
  type: z.literal('mcp_toolset'),
  mcp_server_name: z.string().min(1).max(64),
  configs: z
    .array(z.strictObject({ name: z.string().min(1).max(128), ...mcpConfig }))
    .max(LIMITS.mcpToolsPerServer)
    .nullish(),
  default_config: z.strictObject(mcpConfig).nullish(),
});
export const toolsParam = z
  .array(
    z.discriminatedUnion('type', [toolsetParam, mcpToolsetParam, customTool], {
      error: 'must be agent_toolset_20260401, mcp_toolset or custom',
    }),
  )
  .max(LIMITS.toolsPerAgent);
export type ToolParam = z.infer<typeof toolsParam>[number];

const mcpServerParam = z.strictObject({
  type: z.literal('url'),
  name: z
    .string()
    .max(64)
    .regex(/^[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*$/, 'must be letters and digits, with single - or _ between them')
    .refine((name) => name !== OWN_MCP_SERVER, `${OWN_MCP_SERVER} is the name of our own`),
  url: serverUrl,
});
const mcpServersParam = z.array(mcpServerParam).max(LIMITS.mcpServersPerAgent);
export type McpServerParam = z.infer<typeof mcpServerParam>;
export type ModelParam = z.infer<typeof modelParam>;

const skillParam = z.strictObject({
  type: z.literal('custom', { error: 'must be custom: skills of Anthropic are not supported' }),
  skill_id: z.string().min(1).max(128),
  version: z.string().min(1).max(128).nullish().meta({ description: 'Default: the newest one, which it keeps' }),
});
const skillsParam = z.array(skillParam).max(LIMITS.skillsPerAgent);
export type SkillParam = z.infer<typeof skillParam>;

const systemField = z.string().max(LIMITS.systemPromptChars).nullable().optional();
const cacheFields = { prompt_caching: promptCachingParam.nullish(), response_cache: responseCacheParam.nullish() };
const harnessFields = {
  harness: z.enum(AGENT_HARNESSES).optional().meta({ description: 'The loop that drives the model' }),
  placement: z
    .enum(PLACEMENTS)
    .nullish()
    .meta({ description: 'Where the harness runs: beside the worker, or in the sandbox of the session' }),
  harness_agent: z
    .string()
    .min(1)
    .max(LIMITS.nameChars)
    .nullish()
    .meta({ description: 'Which agent behind the harness, where it has several' }),
};
const unsupported = {
  multiagent: notSupportedYet(),
  execution_identity: notSupportedYet(
    (value) =>
      value === undefined ||
      value === null ||
      (typeof value === 'object' && 'type' in value && value.type === 'service_account'),
  ),
};

export const agentCreate = z
  .strictObject({
    name: nameField,
    model: modelParam,
    description: descriptionField,
    system: systemField,
    tools: toolsParam.optional(),
    mcp_servers: mcpServersParam.nullish(),
    skills: skillsParam.nullish(),
    metadata: metadata.optional(),
    ...harnessFields,
    ...cacheFields,
    ...unsupported,
  })
  .meta({ id: 'AgentCreate' });
export type AgentCreate = z.infer<typeof agentCreate>;

export const agentUpdate = z
  .strictObject({
    version: z
      .number()
      .int()
      .min(1)
      .max(2_147_483_647)
      .optional()
      .meta({ description: 'The version this edit is based on' }),
    name: nameField.optional(),
    model: modelParam.optional(),
    description: descriptionField,
    system: systemField,
    tools: toolsParam.nullish(),
    mcp_servers: mcpServersParam.nullish(),
    skills: skillsParam.nullish(),
    metadata: metadataPatch,
    ...harnessFields,
    ...cacheFields,
    ...unsupported,
  })
  .meta({ id: 'AgentUpdate' });
export type AgentUpdate = z.infer<typeof agentUpdate>;

const agentFields = {
  id: z.string(),
  type: z.literal('agent'),
  version: z.number().int(),
  name: z.string(),
  description: z.string().nullable(),
  model: z.object({
    id: z.string(),
    effort: z.object({ type: effort }).optional(),
    speed: z.enum(['standard', 'fast']).optional(),
  }),
  system: z.string().nullable(),
  tools: z.array(z.looseObject({ type: z.string() })),
  mcp_servers: z.array(z.looseObject({ type: z.string(), name: z.string() })),
  skills: z.array(z.looseObject({ type: z.string() })),
  multiagent: z.null(),
  execution_identity: z.object({ type: z.literal('service_account') }),
  harness: z.enum(AGENT_HARNESSES),
  placement: z.enum(PLACEMENTS),
  harness_agent: z.string().nullable(),
  prompt_caching: promptCaching,
  response_cache: responseCache.nullable(),
};
/** The definition a session was made with. */
export const sessionAgent = z.object(agentFields).meta({ id: 'SessionAgent' });
export const agent = z
  .object({ ...agentFields, metadata, created_at: time, updated_at: time, archived_at: time.nullable() })
  .meta({ id: 'Agent' });
export type AgentResource = z.infer<typeof agent>;
export type SessionAgentResource = z.infer<typeof sessionAgent>;

export const agentReference = z.object({ type: z.literal('agent'), id: z.string(), version: z.number().int() });
export const agentPath = z.object({ agent_id: z.string() });
export const agentGetQuery = z.strictObject({ version: intParam(1, 2_147_483_647).optional() });
export const agentListQuery = z.strictObject({
  ...pageParams,
  ...createdFromTo,
  include_archived: boolParam.optional(),
});
export const agentVersionsQuery = z.strictObject({ ...pageParams });
