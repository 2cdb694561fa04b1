import { vault, vaultPath } from '../../contracts/vaults.ts';
import { archiveCredentials } from '../../db/queries/credentials.ts';
import { archiveVault as archive, getVault } from '../../db/queries/vaults.ts';
import { endpoint } from '../endpoint.ts';
import { renderVault } from '../render/vaults.ts';
import { auditVault, revokeFromSessions } from '../vaults.ts';

export const archiveVault = endpoint({
  method: 'post',
  path: '/v1/vaults/{vault_id}/archive',
  tag: 'Vaults',
  summary: 'Archive a vault: its values are destroyed, running sessions lose them at once',
  params: vaultPath,
  response: vault,
  async handle({ db, principal }, { params }) {
    const before = await getVault(db, principal.teamId, params.vault_id, { lock: true });
    if (before.archivedAt !== null) return renderVault(before);
    const row = await archive(db, before.id);
    const ended = await archiveCredentials(db, { vaultId: row.id });
    await revokeFromSessions(db, principal, { ids: ended.map(({ id }) => id), reason: 'vault archived' });
    await auditVault(db, principal, 'archive', row, { credential_ids: ended.map(({ id }) => id) });
    return renderVault(row);
  },
});
