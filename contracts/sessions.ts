import { z } from 'zod';
import { modelParam, sessionAgent, toolsParam } from './agents.ts';
import { initialEvent } from './events.ts';
import {
  budget,
  labels,
  listCost,
  metadata,
  metadataPatch,
  notSupportedYet,
  repo,
  sessionLimits,
  time,
  titleField,
  vaultIds,
} from './fields.ts';
import { LIMITS } from './limits.ts';
import { sessionResource, sessionResourceParams } from './session-resources.ts';
import { sessionSandbox } from './sandboxes.ts';
import { boolParam, createdFilters, idParam, intParam, orderParam, pageParams } from './paging.ts';

const id = z.string().min(1).max(128);
const version = z.number().int().min(1).max(2_147_483_647).optional();

/** An agent by id (its newest version), by id and version, or with some fields replaced for this session only. */
export const agentParam = z.union([
  id,
  z.discriminatedUnion('type', [
    z.strictObject({ type: z.literal('agent'), id, version }),
    z.strictObject({
      type: z.literal('agent_with_overrides'),
      id,
      version,
      model: modelParam.optional(),
      system: z.string().max(LIMITS.systemPromptChars).nullable().optional(),
      tools: toolsParam.optional(),
      mcp_servers: notSupportedYet(),
      skills: notSupportedYet(),
    }),
  ]),
]);
export type AgentParam = z.infer<typeof agentParam>;

export const sessionCreate = z
  .strictObject({
    agent: agentParam,
    environment_id: id,
    title: titleField,
    metadata: metadata.optional(),
    budget: budget.nullish(),
    limits: sessionLimits.optional(),
    initial_events: z.array(initialEvent).max(LIMITS.initialEvents).optional(),
    vault_ids: vaultIds.optional(),
    labels: labels.optional(),
    repo: repo.nullish(),
    resources: sessionResourceParams.optional(),
  })
  .meta({ id: 'SessionCreate' });
export type SessionCreate = z.infer<typeof sessionCreate>;

export const sessionUpdate = z
  .strictObject({
    title: titleField,
    metadata: metadataPatch,
    budget: budget.nullish(),
    agent: notSupportedYet(),
    vault_ids: notSupportedYet(),
  })
  .meta({ id: 'SessionUpdate' });

const tokens = z.number().int();
export const sessionUsage = z
  .object({
    input_tokens: tokens,
    output_tokens: tokens,
    cache_read_input_tokens: tokens,
    cache_creation: z.object({ ephemeral_5m_input_tokens: tokens, ephemeral_1h_input_tokens: tokens }),
    list_cost: listCost.extend({ amount: z.string() }).nullable(),
    cost_micros: z.number().int().nullable().meta({ description: 'Micro-dollars; null when a model has no price' }),
    active_seconds: z.number(),
  })
  .meta({ id: 'SessionUsage' });
export type SessionUsageResource = z.infer<typeof sessionUsage>;

const status = z.enum(['rescheduling', 'running', 'idle', 'terminated']);
export const session = z
  .object({
    id: z.string(),
    type: z.literal('session'),
    agent: sessionAgent,
    environment_id: z.string(),
    status,
    stop_reason: z.looseObject({ type: z.string() }).nullable(),
    title: z.string().nullable(),
    metadata,
    budget: budget.nullable(),
    limits: sessionLimits,
    resources: z.array(sessionResource),
    vault_ids: z.array(z.string()),
    outcome_evaluations: z.array(z.unknown()),
    deployment_id: z.string().nullable(),
    labels: z.array(z.string()),
    repo: z.string().nullable(),
    trigger: z.string().meta({ description: 'What started it: `api`, `schedule`, `manual`, …' }),
    sandbox: sessionSandbox
      .nullable()
      .meta({ description: 'Longhaul’s own: where its commands run, and what is kept' }),
    attention: z
      .object({
        pending_approval_ids: z.array(z.string()).meta({ description: 'The oldest that are open, tools and network' }),
        security_events: z.number().int(),
      })
      .meta({ description: 'Longhaul’s own: what a person should look at; the turn may go on meanwhile' }),
    usage: sessionUsage,
    stats: z.object({ active_seconds: z.number(), duration_seconds: z.number() }),
    created_at: time,
    updated_at: time,
    archived_at: time.nullable(),
  })
  .meta({ id: 'Session' });
export type SessionResource = z.infer<typeof session>;

export const sessionDeleted = z.object({ id: z.string(), type: z.literal('session_deleted') });
export const sessionListQuery = z.strictObject({
  ...pageParams,
  ...createdFilters,
  order: orderParam.optional(),
  agent_id: idParam.optional(),
  agent_version: intParam(1, 2_147_483_647).optional(),
  deployment_id: idParam.optional(),
  'statuses[]': z.array(status).max(8).optional(),
  label: z.string().min(1).max(LIMITS.labelChars).optional(),
  repo: repo.optional(),
  include_archived: boolParam.optional(),
  memory_store_id: notSupportedYet(),
});

export const usageByModel = z
  .object({
    session_id: z.string(),
    total: sessionUsage,
    models: z.array(
      sessionUsage.omit({ active_seconds: true }).extend({ model: z.string(), provider: z.string(), calls: tokens }),
    ),
  })
  .meta({ id: 'UsageByModel' });

export const sessionThread = z
  .object({
    id: z.string(),
    type: z.literal('session_thread'),
    session_id: z.string(),
    parent_thread_id: z.null(),
    workflow_run_id: z.null(),
    agent: sessionAgent,
    status,
    stats: z.object({ active_seconds: z.number(), duration_seconds: z.number() }),
    usage: sessionUsage,
    created_at: time,
    updated_at: time,
    archived_at: time.nullable(),
  })
  .meta({ id: 'SessionThread' });
export const threadListQuery = z.strictObject({ ...pageParams, 'statuses[]': z.array(status).max(8).optional() });
export const threadPath = z.object({ session_id: z.string(), thread_id: z.string() });
