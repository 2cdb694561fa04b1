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
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    expires_at: isoOrNull(row.expiresAt),
    revoked_at: isoOrNull(row.revokedAt),
    prompt_caching: row.cache?.prompt_caching ?? null,
    response_cache: row.cache?.response_cache ?? null,
  };
}
