import { keyCreate, keyCreated } from '../../contracts/keys.ts';
import { createApiKey, getApiKey } from '../../db/queries/api-keys.ts';
import { resolveCaching } from '../caching.ts';
import { endpoint } from '../endpoint.ts';
import { auditKey, requireUnlimitedKey } from '../key-changes.ts';
import { budgetMicros, renderKey } from '../render/keys.ts';

export const createKey = endpoint({
  method: 'post',
  path: '/v1/keys',
  tag: 'Keys',
  summary: 'Make a long-lived key; the answer is the only place where it is shown',
  body: keyCreate,
  response: keyCreated,
  secrets: ['key'],
  async handle({ db, principal }, { body }) {
    requireUnlimitedKey(principal);
    const { id, key } = await createApiKey(db, {
      name: body.name,
      userId: principal.userId,
      teamId: principal.teamId,
      allowedModels: body.allowed_models ?? null,
      maxParallel: body.max_parallel ?? null,
      budgetMicros: budgetMicros(body.budget ?? null),
      expiresAt: timeOrNull(body.expires_at),
      cache: resolveCaching(body),
      ...(body.scopes === undefined ? {} : { scopes: body.scopes }),
    });
    const row = await getApiKey(db, principal.teamId, id);
    await auditKey(db, principal, 'create', row);
    return { ...renderKey(row), key };
  },
});

function timeOrNull(text: string | null | undefined): Date | null {
  return text === null || text === undefined ? null : new Date(text);
}
