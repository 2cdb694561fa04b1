import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { vaultBinding, vaultBindingCreate, vaultPath } from '../../contracts/vaults.ts';
import type { Queryable } from '../../db/pool.ts';
import { countBindings, putBinding, type BindingTarget } from '../../db/queries/vault-bindings.ts';
import { requireAgent } from '../agent-reference.ts';
import { endpoint } from '../endpoint.ts';
import { requireLiveDeployment } from '../live-deployment.ts';
import { renderBinding } from '../render/vaults.ts';
import { auditVault, requireLiveVault } from '../vaults.ts';

export const createVaultBinding = endpoint({
  method: 'post',
  path: '/v1/vaults/{vault_id}/bindings',
  tag: 'Vaults',
  summary: 'Give a vault to every session of an agent, deployment, user or the team',
  params: vaultPath,
  body: vaultBindingCreate,
  response: vaultBinding,
  async handle({ db, principal }, { params, body }) {
    const { teamId } = principal;
    const vault = await requireLiveVault(db, teamId, params.vault_id);
    const target = { targetType: body.target.type, targetId: body.target.type === 'team' ? teamId : body.target.id };
    await requireTarget(db, teamId, target);
    const counted = await countBindings(db, { teamId, vaultId: vault.id, ...target });
    if (counted.ofTarget >= LIMITS.vaultsPerTarget || counted.ofVault >= LIMITS.bindingsPerVault) {
      throw new LonghaulError('limit_reached', 'there are as many bindings as there may be');
    }
    const row = await putBinding(db, { teamId, vaultId: vault.id, ...target, createdBy: principal.userId });
    await auditVault(db, principal, 'bind', vault, { target: target.targetType, target_id: target.targetId });
    return renderBinding(row);
  },
});

async function requireTarget(
  db: Queryable,
  teamId: string,
  target: { targetType: BindingTarget; targetId: string },
): Promise<void> {
  switch (target.targetType) {
    case 'agent':
      await requireAgent(db, teamId, { id: target.targetId });
      return;
    case 'deployment':
      await requireLiveDeployment(db, teamId, target.targetId);
      return;
    // Users are known by their keys only, and one may get a key after the binding.
    case 'user':
    case 'team':
      return;
  }
}
