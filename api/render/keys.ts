import type { KeyResource } from '../../contracts/keys.ts';
import type { ApiKeyRow } from '../../db/queries/api-keys.ts';
import { isoOrNull } from './times.ts';

export function renderKey(row: ApiKeyRow): KeyResource {
  return {
    id: row.id,
    type: 'api_key',
    name: row.name,
    prefix: row.prefix,
    user_id: row.userId,
    scopes: [...row.scopes],
    allowed_models: row.allowedModels === null ? null : [...row.allowedModels],
    max_parallel: row.maxParallel,
    budget: budgetOf(row.budgetMicros),
    spent_micros: row.spentMicros,
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    expires_at: isoOrNull(row.expiresAt),
    revoked_at: isoOrNull(row.revokedAt),
    prompt_caching: row.cache?.prompt_caching ?? null,
    response_cache: row.cache?.response_cache ?? null,
  };
}

const MICROS_PER_CENT = 10_000;

function budgetOf(limitMicros: number | null): KeyResource['budget'] {
  if (limitMicros === null) return null;
  return { type: 'limit', max_list_cost: { amount: String(limitMicros / MICROS_PER_CENT), currency: 'USD' } };
}

/** The limit of a `budget` field in micro-dollars. */
export function budgetMicros(budget: KeyResource['budget']): number | null {
  return budget === null ? null : Number(budget.max_list_cost.amount) * MICROS_PER_CENT;
}
