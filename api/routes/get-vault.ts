import { vault, vaultPath } from '../../contracts/vaults.ts';
import { getVault as readVault } from '../../db/queries/vaults.ts';
import { endpoint } from '../endpoint.ts';
import { renderVault } from '../render/vaults.ts';

export const getVault = endpoint({
  method: 'get',
  path: '/v1/vaults/{vault_id}',
  tag: 'Vaults',
  summary: 'Get a vault',
  params: vaultPath,
  response: vault,
  async handle({ db, principal }, { params }) {
    return renderVault(await readVault(db, principal.teamId, params.vault_id));
  },
});
