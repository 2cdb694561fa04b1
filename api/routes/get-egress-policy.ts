import { egressPolicy } from '../../contracts/networking.ts';
import { getEgressPolicy as readEgressPolicy } from '../../db/queries/egress-policies.ts';
import { endpoint } from '../endpoint.ts';

export const getEgressPolicy = endpoint({
  method: 'get',
  path: '/v1/egress-policy',
  tag: 'Egress',
  summary: 'Rules of the team for the network of all its sandboxes',
  response: egressPolicy,
  async handle({ db, principal }) {
    const found = await readEgressPolicy(db, principal.teamId);
    return {
      type: 'egress_policy' as const,
      rules: found?.policy.rules ?? [],
      updated_at: found?.updatedAt.toISOString() ?? null,
    };
  },
});
