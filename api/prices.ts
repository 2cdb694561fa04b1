import type { ModelPrice } from '../contracts/model-prices.ts';
import type { Queryable } from '../db/pool.ts';
import { findSetPrice } from '../db/queries/prices.ts';
import { ListPrices, namesOf, type PriceTarget } from '../gateway/prices/price-book.ts';

const LIST = new ListPrices();

/** The price a call would have now; asks the database, so a price that was just set counts. */
export async function findPrice(db: Queryable, target: PriceTarget): Promise<ModelPrice | undefined> {
  const { teamId, provider, model } = target;
  const set = await findSetPrice(db, { teamId, provider, models: namesOf(model) });
  if (set === undefined) return LIST.find(target);
  return { ...set.rates, tiers: set.tiers, modelId: set.model, source: 'override' };
}
