import { LonghaulError } from '../../contracts/error-codes.ts';
import { key, keyPath, keyUpdate } from '../../contracts/keys.ts';
import { getApiKey, updateApiKey } from '../../db/queries/api-keys.ts';
import { resolveCaching } from '../caching.ts';
import { endpoint } from '../endpoint.ts';
import { auditKey, requireUnlimitedKey } from '../key-changes.ts';
import { budgetMicros, renderKey } from '../render/keys.ts';

export const updateKey = endpoint({
  method: 'post',
  path: '/v1/keys/{key_id}',
  tag: 'Keys',
  summary: 'Change name and limits of a key; gateways follow within two seconds',
  params: keyPath,
  body: keyUpdate,
  response: key,
  async handle({ db, principal }, { params, body }) {
    requireUnlimitedKey(principal);
    const before = await getApiKey(db, principal.teamId, params.key_id, { lock: true });
    if (before.revokedAt !== null) throw new LonghaulError('archived', `key ${before.id} is revoked`);
    const { expires_at: expiresAt } = body;
    await updateApiKey(db, before, {
      name: body.name ?? before.name,
      scopes: body.scopes ?? before.scopes,
      allowedModels: body.allowed_models === undefined ? before.allowedModels : body.allowed_models,
      maxParallel: body.max_parallel === undefined ? before.maxParallel : body.max_parallel,
      budgetMicros: body.budget === undefined ? before.budgetMicros : budgetMicros(body.budget),
      expiresAt: typeof expiresAt === 'string' ? new Date(expiresAt) : expiresAt === null ? null : before.expiresAt,
      cache: resolveCaching(body, before.cache ?? {}),
    });
    const row = await getApiKey(db, principal.teamId, before.id);
    await auditKey(db, principal, 'update', row);
    return renderKey(row);
  },
});
