import { key, keyPath } from '../../contracts/keys.ts';
import { getApiKey } from '../../db/queries/api-keys.ts';
import { endpoint } from '../endpoint.ts';
import { renderKey } from '../render/keys.ts';

export const getKey = endpoint({
  method: 'get',
  path: '/v1/keys/{key_id}',
  tag: 'Keys',
  summary: 'Get a key, without the key itself',
  params: keyPath,
  response: key,
  async handle({ db, principal }, { params }) {
    return renderKey(await getApiKey(db, principal.teamId, params.key_id));
  },
});
