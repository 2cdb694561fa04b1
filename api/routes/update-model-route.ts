import { modelRoute, modelRoutePath, modelRouteUpdate } from '../../contracts/model-routes.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { getModelRoute, updateModelRoute as saveModelRoute, type RouteBody } from '../../db/queries/model-routes.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';
import { renderModelRoute } from '../render/model-routes.ts';

export const updateModelRoute = endpoint({
  method: 'post',
  path: '/v1/model-routes/{model_route_id}',
  tag: 'Models',
  summary: 'Edit a model route: each field given replaces that field, null makes it the default',
  params: modelRoutePath,
  body: modelRouteUpdate,
  response: modelRoute,
  async handle({ db, principal }, { params, body }) {
    requireUnlimitedKey(principal);
    const before = await getModelRoute(db, principal.teamId, params.model_route_id, { lock: true });
    const merged: Record<string, unknown> = { ...before.spec };
    for (const [field, value] of Object.entries(body)) {
      if (value === null) delete merged[field];
      else if (value !== undefined) merged[field] = value;
    }
    const row = await saveModelRoute(db, before.id, merged as unknown as RouteBody);
    await insertAudit(db, {
      teamId: principal.teamId,
      actor: actorOf(principal),
      action: 'model_route.update',
      resource: row.id,
      details: { name: row.name, ...row.spec },
    });
    return renderModelRoute(row);
  },
});
