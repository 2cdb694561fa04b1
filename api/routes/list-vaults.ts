import { pageOf } from '../../contracts/paging.ts';
import { vault, vaultListQuery } from '../../contracts/vaults.ts';
import { listVaults as readVaults } from '../../db/queries/vaults.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderVault } from '../render/vaults.ts';

export const listVaults = endpoint({
  method: 'get',
  path: '/v1/vaults',
  tag: 'Vaults',
  summary: 'List vaults, newest first',
  query: vaultListQuery,
  response: pageOf(vault),
  async handle({ db, principal }, { query }) {
    const where = { teamId: principal.teamId, includeArchived: query.include_archived ?? false };
    return renderPage(await readVaults(db, where, pageRequest(query)), renderVault);
  },
});
