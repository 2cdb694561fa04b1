import { vaultDeleted, vaultPath } from '../../contracts/vaults.ts';
import { deleteCredentials } from '../../db/queries/credentials.ts';
import { deleteVault as remove, getVault } from '../../db/queries/vaults.ts';
import { endpoint } from '../endpoint.ts';
import { auditVault, revokeFromSessions } from '../vaults.ts';

export const deleteVault = endpoint({
  method: 'delete',
  path: '/v1/vaults/{vault_id}',
  tag: 'Vaults',
  summary: 'Delete a vault with all it holds; running sessions lose it at once',
  params: vaultPath,
  response: vaultDeleted,
  async handle({ db, principal }, { params }) {
    const row = await getVault(db, principal.teamId, params.vault_id, { lock: true });
    const ended = await deleteCredentials(db, { vaultId: row.id });
    await revokeFromSessions(db, principal, { ids: ended.map(({ id }) => id), reason: 'vault deleted' });
    await remove(db, row.id);
    await auditVault(db, principal, 'delete', row, { credential_ids: ended.map(({ id }) => id) });
    return { id: row.id, type: 'vault_deleted' as const };
  },
});
