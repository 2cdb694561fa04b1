import { modelPolicy, modelPolicyUpdate } from '../../contracts/model-routes.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { setModelPolicy } from '../../db/queries/model-routes.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';

export const updateModelPolicy = endpoint({
  method: 'post',
  path: '/v1/model-policy',
  tag: 'Models',
  summary: 'Say which models the team may call: names, or patterns that end with *; null for all it can reach',
  body: modelPolicyUpdate,
  response: modelPolicy,
  async handle({ db, principal }, { body }) {
    requireUnlimitedKey(principal);
    const { teamId, userId } = principal;
    const row = await setModelPolicy(db, { teamId, userId, allowedModels: body.allowed_models });
    await insertAudit(db, {
      teamId,
      actor: actorOf(principal),
      action: 'model_policy.update',
      resource: teamId,
      details: { allowed_models: row.allowedModels },
    });
    return {
      type: 'model_policy' as const,
      team_id: teamId,
      allowed_models: row.allowedModels,
      updated_at: row.updatedAt.toISOString(),
    };
  },
});
