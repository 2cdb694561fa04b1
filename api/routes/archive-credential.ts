import { credential, credentialPath } from '../../contracts/vaults.ts';
import { archiveCredentials, getCredential } from '../../db/queries/credentials.ts';
import { endpoint } from '../endpoint.ts';
import { renderCredential } from '../render/vaults.ts';
import { auditCredential, revokeFromSessions } from '../vaults.ts';

export const archiveCredential = endpoint({
  method: 'post',
  path: '/v1/vaults/{vault_id}/credentials/{credential_id}/archive',
  tag: 'Vaults',
  summary: 'Archive a credential: its value is destroyed, running sessions lose it at once',
  params: credentialPath,
  response: credential,
  async handle({ db, principal }, { params }) {
    const place = { teamId: principal.teamId, vaultId: params.vault_id, id: params.credential_id };
    const before = await getCredential(db, place, { lock: true });
    if (before.archivedAt !== null) return renderCredential(before);
    await archiveCredentials(db, { vaultId: before.vaultId, id: before.id });
    await revokeFromSessions(db, principal, { ids: [before.id], reason: 'credential archived' });
    const row = await getCredential(db, place);
    await auditCredential(db, principal, 'archive', row);
    return renderCredential(row);
  },
});
