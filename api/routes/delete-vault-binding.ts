import { vaultBindingDeleted, vaultBindingPath } from '../../contracts/vaults.ts';
import { deleteBinding } from '../../db/queries/vault-bindings.ts';
import { getVault } from '../../db/queries/vaults.ts';
import { endpoint } from '../endpoint.ts';
import { auditVault } from '../vaults.ts';

export const deleteVaultBinding = endpoint({
  method: 'delete',
  path: '/v1/vaults/{vault_id}/bindings/{binding_id}',
  tag: 'Vaults',
  summary: 'Take a binding away; sessions that have the vault keep it',
  params: vaultBindingPath,
  response: vaultBindingDeleted,
  async handle({ db, principal }, { params }) {
    const vault = await getVault(db, principal.teamId, params.vault_id, { lock: true });
    const row = await deleteBinding(db, vault.id, params.binding_id);
    await auditVault(db, principal, 'unbind', vault, { target: row.targetType, target_id: row.targetId });
    return { id: row.id, type: 'vault_binding_deleted' as const };
  },
});
