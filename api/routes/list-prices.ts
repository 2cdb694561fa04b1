import { pageOf } from '../../contracts/paging.ts';
import { price, priceListQuery } from '../../contracts/price-overrides.ts';
import { listPrices as readPrices } from '../../db/queries/prices.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderPrice } from '../render/prices.ts';

export const listPrices = endpoint({
  method: 'get',
  path: '/v1/prices',
  tag: 'Prices',
  summary: 'List prices that were set, by your team and for the installation, newest first',
  query: priceListQuery,
  response: pageOf(price),
  async handle({ db, principal }, { query }) {
    const where = { teamId: principal.teamId, model: query.model, provider: query.provider };
    return renderPage(await readPrices(db, where, pageRequest(query)), renderPrice);
  },
});
