import { readLitellmPrices } from '../../contracts/litellm-prices.ts';
import { priceImport, priceImported } from '../../contracts/price-overrides.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { setPrices } from '../../db/queries/prices.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';

const REASONS = 100;

export const importPrices = endpoint({
  method: 'post',
  path: '/v1/prices/import',
  tag: 'Prices',
  summary: 'Set the prices of a LiteLLM price map for your team',
  description: 'All or nothing. Prices of models that the map does not name stay.',
  body: priceImport,
  response: priceImported,
  async handle({ db, principal }, { body }) {
    requireUnlimitedKey(principal);
    const { teamId, userId } = principal;
    const read = readLitellmPrices(body.litellm);
    await setPrices(db, { teamId, setBy: userId, source: 'litellm' }, read.prices);
    const details = { imported: read.prices.length, skipped: read.skipped.length };
    await insertAudit(db, { teamId, actor: actorOf(principal), action: 'price.import', resource: 'prices', details });
    return {
      type: 'price_import' as const,
      ...details,
      reasons: read.skipped.slice(0, REASONS),
      ignored_fields: read.ignoredFields.slice(0, REASONS),
    };
  },
});
