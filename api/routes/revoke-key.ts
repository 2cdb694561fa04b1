import { key, keyPath } from '../../contracts/keys.ts';
import { getApiKey, revokeApiKey } from '../../db/queries/api-keys.ts';
import { endpoint } from '../endpoint.ts';
import { auditKey, requireUnlimitedKey } from '../key-changes.ts';
import { renderKey } from '../render/keys.ts';

export const revokeKey = endpoint({
  method: 'post',
  path: '/v1/keys/{key_id}/revoke',
  tag: 'Keys',
  summary: 'End a key for good; gateways follow within two seconds',
  params: keyPath,
  response: key,
  async handle({ db, principal }, { params }) {
    // Whoever holds a key that leaked can always end it.
    if (params.key_id !== principal.id) requireUnlimitedKey(principal);
    const wasLive = await revokeApiKey(db, principal.teamId, params.key_id);
    const row = await getApiKey(db, principal.teamId, params.key_id);
    if (wasLive) await auditKey(db, principal, 'revoke', row);
    return renderKey(row);
  },
});
