import { modelRoute, modelRouteListQuery } from '../../contracts/model-routes.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listModelRoutes as readModelRoutes } from '../../db/queries/model-routes.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderModelRoute } from '../render/model-routes.ts';

export const listModelRoutes = endpoint({
  method: 'get',
  path: '/v1/model-routes',
  tag: 'Models',
  summary: 'List the team’s model routes, newest first',
  query: modelRouteListQuery,
  response: pageOf(modelRoute),
  async handle({ db, principal }, { query }) {
    return renderPage(await readModelRoutes(db, principal.teamId, pageRequest(query)), renderModelRoute);
  },
});
