import { credential, credentialPath } from '../../contracts/vaults.ts';
import { getCredential as readCredential } from '../../db/queries/credentials.ts';
import { endpoint } from '../endpoint.ts';
import { renderCredential } from '../render/vaults.ts';

export const getCredential = endpoint({
  method: 'get',
  path: '/v1/vaults/{vault_id}/credentials/{credential_id}',
  tag: 'Vaults',
  summary: 'Get a credential, without its value',
  params: credentialPath,
  response: credential,
  async handle({ db, principal }, { params }) {
    const place = { teamId: principal.teamId, vaultId: params.vault_id, id: params.credential_id };
    return renderCredential(await readCredential(db, place));
  },
});
