import { price, pricePath } from '../../contracts/price-overrides.ts';
import { getPrice as readPrice } from '../../db/queries/prices.ts';
import { endpoint } from '../endpoint.ts';
import { renderPrice } from '../render/prices.ts';

export const getPrice = endpoint({
  method: 'get',
  path: '/v1/prices/{price_id}',
  tag: 'Prices',
  summary: 'Get a price that was set',
  params: pricePath,
  response: price,
  async handle({ db, principal }, { params }) {
    return renderPrice(await readPrice(db, principal.teamId, params.price_id));
  },
});
