import { modelPolicy } from '../../contracts/model-routes.ts';
import { getModelPolicy as readModelPolicy } from '../../db/queries/model-routes.ts';
import { endpoint } from '../endpoint.ts';
import { isoOrNull } from '../render/times.ts';

export const getModelPolicy = endpoint({
  method: 'get',
  path: '/v1/model-policy',
  tag: 'Models',
  summary: 'Which models the team may call',
  response: modelPolicy,
  async handle({ db, principal }) {
    const row = await readModelPolicy(db, principal.teamId);
    return {
      type: 'model_policy' as const,
      team_id: principal.teamId,
      allowed_models: row?.allowedModels ?? null,
      updated_at: isoOrNull(row?.updatedAt ?? null),
    };
  },
});
