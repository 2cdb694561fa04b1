import { credentialDeleted, credentialPath } from '../../contracts/vaults.ts';
import { deleteCredentials, getCredential } from '../../db/queries/credentials.ts';
import { endpoint } from '../endpoint.ts';
import { auditCredential, revokeFromSessions } from '../vaults.ts';

export const deleteCredential = endpoint({
  method: 'delete',
  path: '/v1/vaults/{vault_id}/credentials/{credential_id}',
  tag: 'Vaults',
  summary: 'Delete a credential; running sessions lose it at once',
  params: credentialPath,
  response: credentialDeleted,
  async handle({ db, principal }, { params }) {
    const place = { teamId: principal.teamId, vaultId: params.vault_id, id: params.credential_id };
    const row = await getCredential(db, place, { lock: true });
    await deleteCredentials(db, { vaultId: row.vaultId, id: row.id });
    await revokeFromSessions(db, principal, { ids: [row.id], reason: 'credential deleted' });
    await auditCredential(db, principal, 'delete', row);
    return { id: row.id, type: 'vault_credential_deleted' as const };
  },
});
