import { modelRoute, modelRouteParam } from '../../contracts/model-routes.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { insertModelRoute } from '../../db/queries/model-routes.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';
import { renderModelRoute } from '../render/model-routes.ts';

export const createModelRoute = endpoint({
  method: 'post',
  path: '/v1/model-routes',
  tag: 'Models',
  summary: 'Give a model name to the team: deployments that answer for it, and how to choose among them',
  description:
    'Keys of providers are only ever named: `env:NAME` is a variable of the gateway. Gateways use a change within moments, without a restart.',
  body: modelRouteParam,
  response: modelRoute,
  async handle({ db, principal }, { body }) {
    requireUnlimitedKey(principal);
    const { name, ...spec } = body;
    const row = await insertModelRoute(db, { teamId: principal.teamId, userId: principal.userId, name, spec });
    await insertAudit(db, {
      teamId: principal.teamId,
      actor: actorOf(principal),
      action: 'model_route.create',
      resource: row.id,
      details: { name, ...spec },
    });
    return renderModelRoute(row);
  },
});
