import { key, keyListQuery } from '../../contracts/keys.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listApiKeys } from '../../db/queries/api-keys.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderKey } from '../render/keys.ts';

export const listKeys = endpoint({
  method: 'get',
  path: '/v1/keys',
  tag: 'Keys',
  summary: 'List keys, newest first',
  query: keyListQuery,
  response: pageOf(key),
  async handle({ db, principal }, { query }) {
    const where = { teamId: principal.teamId, includeRevoked: query.include_revoked ?? false };
    return renderPage(await listApiKeys(db, where, pageRequest(query)), renderKey);
  },
});
