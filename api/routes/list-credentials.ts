import { pageOf } from '../../contracts/paging.ts';
import { credential, vaultListQuery, vaultPath } from '../../contracts/vaults.ts';
import { listCredentials as readCredentials } from '../../db/queries/credentials.ts';
import { getVault } from '../../db/queries/vaults.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderCredential } from '../render/vaults.ts';

export const listCredentials = endpoint({
  method: 'get',
  path: '/v1/vaults/{vault_id}/credentials',
  tag: 'Vaults',
  summary: 'List credentials of a vault, newest first, without their values',
  params: vaultPath,
  query: vaultListQuery,
  response: pageOf(credential),
  async handle({ db, principal }, { params, query }) {
    const { id: vaultId } = await getVault(db, principal.teamId, params.vault_id);
    const where = { teamId: principal.teamId, vaultId, includeArchived: query.include_archived ?? false };
    return renderPage(await readCredentials(db, where, pageRequest(query)), renderCredential);
  },
});
