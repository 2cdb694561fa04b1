import { effectivePrice, effectivePriceQuery, renderRates } from '../../contracts/price-overrides.ts';
import { requireRow } from '../../db/pool.ts';
import { endpoint } from '../endpoint.ts';
import { findPrice } from '../prices.ts';

export const getEffectivePrice = endpoint({
  method: 'get',
  path: '/v1/prices/effective',
  tag: 'Prices',
  summary: 'What a call of a model costs your team now, and where that price is from',
  query: effectivePriceQuery,
  response: effectivePrice,
  async handle({ db, principal }, { query }) {
    const provider = query.provider ?? null;
    const found = await findPrice(db, { teamId: principal.teamId, provider, model: query.model });
    const price = requireRow(found, `a price of model ${query.model}`);
    return {
      type: 'effective_price' as const,
      model: query.model,
      provider,
      priced_as: price.modelId,
      source: price.source,
      ...renderRates(price, price.tiers),
    };
  },
});
