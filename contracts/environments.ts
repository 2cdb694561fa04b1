import { z } from 'zod';
import { descriptionField, metadata, metadataPatch, nameField, time } from './fields.ts';
import { networking, networkingParam } from './networking.ts';
import { boolParam, pageParams } from './paging.ts';

const packageList = z.array(z.string().min(1).max(256)).max(200);
const MANAGERS = ['apt', 'cargo', 'gem', 'go', 'npm', 'pip'] as const;
const packageLists = <T extends z.ZodType>(list: T) =>
  Object.fromEntries(MANAGERS.map((name) => [name, list])) as Record<(typeof MANAGERS)[number], T>;

const configParam = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('cloud'),
    networking: networkingParam.nullish(),
    packages: z
      .strictObject({ type: z.literal('packages').optional(), ...packageLists(packageList.nullish()) })
      .nullish(),
    provider: z.literal('local').optional(),
  }),
  z.strictObject({ type: z.literal('self_hosted') }),
]);
export type EnvironmentConfigParam = z.infer<typeof configParam>;

/** Keys belong to one team; every resource is the team's. */
const scope = z.literal('organization', { error: 'only organization is supported' }).nullish();

export const environmentCreate = z
  .strictObject({
    name: nameField,
    description: descriptionField,
    config: configParam.nullish(),
    metadata: metadata.optional(),
    scope,
  })
  .meta({ id: 'EnvironmentCreate' });
export type EnvironmentCreate = z.infer<typeof environmentCreate>;

export const environmentUpdate = z
  .strictObject({
    name: nameField.nullish(),
    description: descriptionField,
    config: configParam.nullish(),
    metadata: metadataPatch,
    scope,
  })
  .meta({ id: 'EnvironmentUpdate' });

const config = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('cloud'),
    networking,
    packages: z.object({ type: z.literal('packages'), ...packageLists(packageList) }),
    provider: z.literal('local'),
  }),
  z.object({ type: z.literal('self_hosted') }),
]);
export const environment = z
  .object({
    id: z.string(),
    type: z.literal('environment'),
    name: z.string(),
    description: z.string().nullable(),
    config,
    metadata,
    scope: z.literal('organization'),
    created_at: time,
    updated_at: time,
    archived_at: time.nullable(),
  })
  .meta({ id: 'Environment' });
export type EnvironmentResource = z.infer<typeof environment>;

export const environmentPath = z.object({ environment_id: z.string() });
export const environmentListQuery = z.strictObject({ ...pageParams, include_archived: boolParam.optional() });
export const environmentDeleted = z.object({ id: z.string(), type: z.literal('environment_deleted') });
