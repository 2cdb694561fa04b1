import { egressPolicy, egressPolicyParam, resolveRules } from '../../contracts/networking.ts';
import { notify } from '../../db/listen.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { CREDENTIALS_CHANNEL } from '../../db/queries/credentials.ts';
import { setEgressPolicy } from '../../db/queries/egress-policies.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';

export const updateEgressPolicy = endpoint({
  method: 'post',
  path: '/v1/egress-policy',
  tag: 'Egress',
  summary: 'Replace the rules of the team; they hold before those of environments, in running sandboxes too',
  body: egressPolicyParam,
  response: egressPolicy,
  async handle({ db, principal }, { body }) {
    const rules = resolveRules(body.rules);
    const updatedAt = await setEgressPolicy(db, principal.teamId, { rules }, actorOf(principal));
    await insertAudit(db, {
      teamId: principal.teamId,
      actor: actorOf(principal),
      action: 'egress_policy.update',
      resource: principal.teamId,
      details: { rules },
    });
    await notify(db, CREDENTIALS_CHANNEL, `team:${principal.teamId}`);
    return { type: 'egress_policy' as const, rules, updated_at: updatedAt.toISOString() };
  },
});
