import { modelRoute, modelRoutePath } from '../../contracts/model-routes.ts';
import { getModelRoute as readModelRoute } from '../../db/queries/model-routes.ts';
import { endpoint } from '../endpoint.ts';
import { renderModelRoute } from '../render/model-routes.ts';

export const getModelRoute = endpoint({
  method: 'get',
  path: '/v1/model-routes/{model_route_id}',
  tag: 'Models',
  summary: 'Get a model route',
  params: modelRoutePath,
  response: modelRoute,
  async handle({ db, principal }, { params }) {
    return renderModelRoute(await readModelRoute(db, principal.teamId, params.model_route_id));
  },
});
