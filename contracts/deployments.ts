import { z } from 'zod';
import { agentReference } from './agents.ts';
import { initialEvent } from './events.ts';
import {
  budget,
  descriptionField,
  labels,
  metadata,
  metadataPatch,
  nameField,
  notSupportedYet,
  repo,
  sessionLimits,
  time,
  vaultIds,
} from './fields.ts';
import { LIMITS } from './limits.ts';
import { boolParam, createdFilters, createdFromTo, idParam, pageParams } from './paging.ts';

const id = z.string().min(1).max(128);
const agentParam = z.union([
  id,
  z.strictObject({ type: z.literal('agent'), id, version: z.number().int().min(1).max(2_147_483_647).optional() }),
]);
const scheduleParam = z.strictObject({
  type: z.literal('cron'),
  expression: z.string().min(1).max(256).meta({ example: '0 9 * * 1-5' }),
  timezone: z.string().min(1).max(64).meta({ example: 'Europe/Berlin' }),
});
export type ScheduleParam = z.infer<typeof scheduleParam>;
const initialEvents = z.array(initialEvent).min(1).max(LIMITS.initialEvents);

export const deploymentCreate = z
  .strictObject({
    name: nameField,
    agent: agentParam,
    environment_id: id,
    initial_events: initialEvents,
    description: descriptionField,
    schedule: scheduleParam.nullish(),
    budget: budget.nullish(),
    limits: sessionLimits.optional(),
    metadata: metadata.optional(),
    vault_ids: vaultIds.optional(),
    labels: labels.optional(),
    repo: repo.nullish(),
    resources: notSupportedYet(),
  })
  .meta({ id: 'DeploymentCreate' });
export type DeploymentCreate = z.infer<typeof deploymentCreate>;

export const deploymentUpdate = z
  .strictObject({
    name: nameField.optional(),
    agent: agentParam.optional(),
    environment_id: id.optional(),
    initial_events: initialEvents.optional(),
    description: descriptionField,
    schedule: scheduleParam.nullish(),
    budget: budget.nullish(),
    limits: sessionLimits.optional(),
    metadata: metadataPatch,
    vault_ids: vaultIds.nullish(),
    labels: labels.nullish(),
    repo: repo.nullish(),
    resources: notSupportedYet(),
  })
  .meta({ id: 'DeploymentUpdate' });
export type DeploymentUpdate = z.infer<typeof deploymentUpdate>;

const status = z.enum(['active', 'paused']);
export const deployment = z
  .object({
    id: z.string(),
    type: z.literal('deployment'),
    name: z.string(),
    description: z.string().nullable(),
    agent: agentReference,
    environment_id: z.string(),
    initial_events: z.array(z.looseObject({ type: z.string() })),
    schedule: scheduleParam.extend({ last_run_at: time.nullable(), upcoming_runs_at: z.array(time) }).nullable(),
    status,
    paused_reason: z.looseObject({ type: z.string() }).nullable(),
    budget: budget.nullable(),
    limits: sessionLimits,
    resources: z.array(z.unknown()),
    vault_ids: z.array(z.string()),
    labels: z.array(z.string()),
    repo: z.string().nullable(),
    metadata,
    created_at: time,
    updated_at: time,
    archived_at: time.nullable(),
  })
  .meta({ id: 'Deployment' });
export type DeploymentResource = z.infer<typeof deployment>;

export const deploymentRun = z
  .object({
    id: z.string(),
    type: z.literal('deployment_run'),
    deployment_id: z.string(),
    agent: agentReference,
    session_id: z.string().nullable(),
    trigger_context: z.looseObject({ type: z.enum(['manual', 'schedule']) }),
    status: z.enum(['running', 'succeeded', 'failed']),
    error: z.looseObject({ type: z.string(), message: z.string() }).nullable(),
    created_at: time,
    ended_at: time.nullable(),
  })
  .meta({ id: 'DeploymentRun' });
export type DeploymentRunResource = z.infer<typeof deploymentRun>;

export const deploymentPath = z.object({ deployment_id: z.string() });
export const deploymentRunPath = z.object({ deployment_run_id: z.string() });
export const deploymentListQuery = z.strictObject({
  ...pageParams,
  ...createdFromTo,
  agent_id: idParam.optional(),
  status: status.optional(),
  include_archived: boolParam.optional(),
});
export const deploymentRunListQuery = z.strictObject({
  ...pageParams,
  ...createdFilters,
  deployment_id: idParam.optional(),
  has_error: boolParam.optional(),
  trigger_type: z.enum(['schedule', 'manual']).optional(),
});
