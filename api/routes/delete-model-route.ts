import { modelRouteDeleted, modelRoutePath } from '../../contracts/model-routes.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { deleteModelRoute as remove, getModelRoute } from '../../db/queries/model-routes.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';

export const deleteModelRoute = endpoint({
  method: 'delete',
  path: '/v1/model-routes/{model_route_id}',
  tag: 'Models',
  summary: 'Delete a model route; running calls go on',
  params: modelRoutePath,
  response: modelRouteDeleted,
  async handle({ db, principal }, { params }) {
    requireUnlimitedKey(principal);
    const row = await getModelRoute(db, principal.teamId, params.model_route_id, { lock: true });
    await remove(db, row.id);
    await insertAudit(db, {
      teamId: row.teamId,
      actor: actorOf(principal),
      action: 'model_route.delete',
      resource: row.id,
      details: { name: row.name },
    });
    return { id: row.id, type: 'model_route_deleted' as const };
  },
});
