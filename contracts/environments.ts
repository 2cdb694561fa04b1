import { z } from 'zod';
import type { PackageManager } from './definitions.ts';
import { PACKAGE_MANAGERS, SANDBOX_PROVIDER_NAMES } from './definitions.ts';
import type { ErrorCode } from './error-codes.ts';
import { descriptionField, metadata, metadataPatch, nameField, time } from './fields.ts';
import { LIMITS } from './limits.ts';
import { networking, networkingParam } from './networking.ts';
import { boolParam, pageParams } from './paging.ts';

const packageList = z.array(z.string().min(1).max(256)).max(200);
const packageLists = <T extends z.ZodType>(list: T) =>
  Object.fromEntries(PACKAGE_MANAGERS.map((name) => [name, list])) as Record<PackageManager, T>;

/** `ssh://` and its like, or `git@host:path`, which only ssh understands. */
const SSH_URL = /^(?:(?:git\+)?ssh(?:\+git)?:\/\/|(?:[^/\s:@]+@[^/\s:]+|[\w-]+(?:\.[\w-]+)+):(?!\/\/))/i;
const OVER_SSH: ErrorCode = 'git_over_ssh';

/** Where git clones from: https alone, since the egress broker can put a token into a request but no key into ssh. */
export const gitUrl = z
  .string()
  .max(LIMITS.urlChars)
  .superRefine((text, context) => {
    const refuse = (message: string, params = {}): void => context.addIssue({ code: 'custom', message, params });
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (SSH_URL.test(text)) {
      const message = 'git over ssh does not go through the egress broker; give the https URL and a token';
      refuse(message, { code: OVER_SSH });
    } else if (url === undefined || !/^https:\/\/\S+$/i.test(text)) refuse('must be an https URL');
    else if (url.username !== '' || url.password !== '') refuse('must hold no credentials; name one of a vault');
  })
  .meta({ format: 'uri' });
/** Absolute, below /workspace, without `.` and `..`. */
export const mountPath = z
  .string()
  .max(LIMITS.mountPathChars)
  .regex(/^\/workspace(\/(?!\.{1,2}(\/|$))[\w.@+-]+)+$/, 'must be a path below /workspace');
export const gitBranch = z
  .string()
  .max(LIMITS.nameChars)
  .regex(/^(?!-)(?!.*(\.\.|@\{|\/\/|\.lock$))[\w][\w./@+-]*$/, 'must be the name of a branch');
export const gitCommit = z.string().regex(/^[0-9a-f]{7,64}$/, 'must be a commit id in lower-case hexadecimal');

const repositoryParam = z
  .strictObject({
    url: gitUrl,
    branch: gitBranch.nullish(),
    commit: gitCommit.nullish(),
    mount_path: mountPath.nullish(),
    credential: z.string().min(1).max(LIMITS.nameChars).nullish().meta({
      description: 'Id or name of a credential in the vaults of the session; it never enters the sandbox',
    }),
  })
  .refine((given) => (given.branch ?? null) === null || (given.commit ?? null) === null, {
    error: 'give a branch or a commit, not both',
    path: ['commit'],
  });

const whole = (least: number, most: number) => z.number().int().min(least).max(most);
const DAY_S = 86_400;
const idle = {
  pause: whole(60, 30 * DAY_S),
  later: whole(60, 90 * DAY_S).nullable(),
};
const envName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'must be the name of a variable');
const envPairs = z
  .record(envName, z.string().max(LIMITS.envValueChars))
  .refine((pairs) => Object.keys(pairs).length <= LIMITS.envPairs, { error: `at most ${LIMITS.envPairs} variables` })
  .meta({ description: 'Not secret: what looks like a secret is refused. Credentials come from vaults.' });
const image = z
  .string()
  .max(512)
  .regex(/^[\w][\w.:@/-]*$/, 'must be the name of an image or template')
  .meta({ description: 'A container image (docker, kubernetes) or a template (e2b, daytona)' });

const configParam = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('cloud'),
    networking: networkingParam.nullish(),
    packages: z
      .strictObject({ type: z.literal('packages').optional(), ...packageLists(packageList.nullish()) })
      .nullish(),
    provider: z.enum(SANDBOX_PROVIDER_NAMES).optional(),
    image: image.nullish(),
    resources: z
      .strictObject({
        memory_mb: whole(64, 65_536).optional(),
        cpus: z.number().min(0.1).max(64).optional(),
        disk_mb: whole(64, 1_048_576).optional(),
        processes: whole(16, 65_536).optional(),
      })
      .nullish(),
    setup_script: z
      .string()
      .max(LIMITS.setupScriptChars)
      .refine((text) => !text.includes('\0'), { error: 'must not contain NUL' })
      .nullish(),
    repositories: z.array(repositoryParam).max(LIMITS.repositories).nullish(),
    env: envPairs.nullish(),
    idle: z
      .strictObject({
        pause_after_seconds: idle.pause.optional(),
        snapshot_after_seconds: idle.later.optional(),
        destroy_after_seconds: idle.later.optional(),
        keep_memory: z.boolean().optional(),
      })
      .nullish(),
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
    provider: z.enum(SANDBOX_PROVIDER_NAMES),
    image: z.string().nullable(),
    resources: z.object({ memory_mb: z.number(), cpus: z.number(), disk_mb: z.number(), processes: z.number() }),
    setup_script: z.string().nullable(),
    repositories: z.array(
      z.object({
        url: z.string(),
        branch: z.string().nullable(),
        commit: z.string().nullable(),
        mount_path: z.string(),
        credential: z.string().nullable(),
      }),
    ),
    env: z.record(z.string(), z.string()),
    idle: z.object({
      pause_after_seconds: z.number(),
      snapshot_after_seconds: z.number().nullable(),
      destroy_after_seconds: z.number().nullable(),
      keep_memory: z.boolean(),
    }),
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
