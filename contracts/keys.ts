import { z } from 'zod';
import { promptCaching, promptCachingParam, responseCache, responseCacheParam } from './agent-cache.ts';
import { budget, nameField, time } from './fields.ts';
import { KEY_SCOPES } from './key-scopes.ts';
import { LIMITS } from './limits.ts';
import { boolParam, pageParams, timeParam } from './paging.ts';

const allowedModels = z
  .array(z.string().min(1).max(LIMITS.nameChars))
  .min(1)
  .max(LIMITS.modelsPerKey)
  .meta({ description: 'Models the key may call; an entry may end with `*`. null: every model' });
const maxParallel = z.int().min(1).max(LIMITS.keyParallelMax).meta({
  description: 'Model calls that may run at once, in each gateway process. null: no limit',
});
const scopes = z
  .array(z.enum(KEY_SCOPES))
  .min(1)
  .max(KEY_SCOPES.length)
  .transform((given) => KEY_SCOPES.filter((scope) => given.includes(scope)))
  .meta({ description: '`api`: this API; `gateway`: model calls. Default: both' });
const keyBudget = budget.meta({ description: 'What all model calls of the key may cost together. null: no limit' });
const future = timeParam.refine((text) => Date.parse(text) > Date.now(), 'must be in the future');

export const keyCreate = z
  .strictObject({
    name: nameField,
    scopes: scopes.optional(),
    allowed_models: allowedModels.nullish(),
    max_parallel: maxParallel.nullish(),
    expires_at: future.nullish(),
    budget: keyBudget.nullish(),
    prompt_caching: promptCachingParam.nullish(),
    response_cache: responseCacheParam.nullish(),
  })
  .meta({ id: 'KeyCreate' });
export const keyUpdate = z
  .strictObject({
    name: nameField.optional(),
    scopes: scopes.optional(),
    allowed_models: allowedModels.nullish(),
    max_parallel: maxParallel.nullish(),
    expires_at: future.nullish(),
    budget: keyBudget.nullish(),
    prompt_caching: promptCachingParam.nullish(),
    response_cache: responseCacheParam.nullish(),
  })
  .meta({ id: 'KeyUpdate' });

const fields = {
  id: z.string(),
  type: z.literal('api_key'),
  name: z.string(),
  prefix: z.string().meta({ description: 'First characters of the key' }),
  user_id: z.string(),
  scopes: z.array(z.enum(KEY_SCOPES)),
  allowed_models: z.array(z.string()).nullable(),
  max_parallel: z.int().nullable(),
  budget: budget.nullable(),
  spent_micros: z.int().meta({ description: 'Micro-dollars spent of the budget' }),
  created_at: time,
  updated_at: time,
  expires_at: time.nullable(),
  revoked_at: time.nullable(),
  prompt_caching: promptCaching.nullable(),
  response_cache: responseCache.nullable(),
};
/** A long-lived key, without the key itself. */
export const key = z.object(fields).meta({ id: 'Key' });
export type KeyResource = z.infer<typeof key>;
export const keyCreated = z
  .object({
    ...fields,
    key: z.string().nullable().meta({ description: 'Shown once: null when the request is repeated' }),
  })
  .meta({ id: 'KeyCreated' });
export type KeyCreatedResource = z.infer<typeof keyCreated>;

export const keyPath = z.object({ key_id: z.string() });
export const keyListQuery = z.strictObject({ ...pageParams, include_revoked: boolParam.optional() });
