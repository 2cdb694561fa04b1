import { vault, vaultPath, vaultUpdate } from '../../contracts/vaults.ts';
import { updateVault as saveVault } from '../../db/queries/vaults.ts';
import { patchMetadata } from '../definitions.ts';
import { endpoint } from '../endpoint.ts';
import { renderVault } from '../render/vaults.ts';
import { auditVault, requireLiveVault } from '../vaults.ts';

export const updateVault = endpoint({
  method: 'post',
  path: '/v1/vaults/{vault_id}',
  tag: 'Vaults',
  summary: 'Rename a vault or change its metadata',
  params: vaultPath,
  body: vaultUpdate,
  response: vault,
  async handle({ db, principal }, { params, body }) {
    const before = await requireLiveVault(db, principal.teamId, params.vault_id);
    const row = await saveVault(db, before.id, {
      displayName: body.display_name ?? before.displayName,
      metadata: patchMetadata(before.metadata, body.metadata),
    });
    await auditVault(db, principal, 'update', row);
    return renderVault(row);
  },
});
