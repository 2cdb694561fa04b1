import type { ModelRouteResource } from '../../contracts/model-routes.ts';
import { ROUTE_DEFAULTS } from '../../contracts/routing.ts';
import type { ModelRouteRow } from '../../db/queries/model-routes.ts';

export function renderModelRoute(row: ModelRouteRow): ModelRouteResource {
  const { spec } = row;
  return {
    id: row.id,
    type: 'model_route',
    name: row.name,
    deployments: spec.deployments,
    strategy: spec.strategy ?? ROUTE_DEFAULTS.strategy,
    fallbacks: spec.fallbacks ?? {},
    retries: spec.retries ?? ROUTE_DEFAULTS.retries,
    allowed_fails: spec.allowed_fails ?? ROUTE_DEFAULTS.allowedFails,
    cooldown_ms: spec.cooldown_ms ?? ROUTE_DEFAULTS.cooldownMs,
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
  };
}
