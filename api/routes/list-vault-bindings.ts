import { LIMITS } from '../../contracts/limits.ts';
import { vaultBindings, vaultPath } from '../../contracts/vaults.ts';
import { listBindings } from '../../db/queries/vault-bindings.ts';
import { getVault } from '../../db/queries/vaults.ts';
import { endpoint } from '../endpoint.ts';
import { renderBinding } from '../render/vaults.ts';

export const listVaultBindings = endpoint({
  method: 'get',
  path: '/v1/vaults/{vault_id}/bindings',
  tag: 'Vaults',
  summary: 'List what a vault is bound to',
  params: vaultPath,
  response: vaultBindings,
  async handle({ db, principal }, { params }) {
    const vault = await getVault(db, principal.teamId, params.vault_id);
    const rows = await listBindings(db, vault.id, LIMITS.bindingsPerVault);
    return { data: rows.map(renderBinding), next_page: null };
  },
});
