import { renderRates, type PriceResource } from '../../contracts/price-overrides.ts';
import type { PriceRow } from '../../db/queries/prices.ts';

export function renderPrice(row: PriceRow): PriceResource {
  return {
    id: row.id,
    type: 'price',
    scope: row.teamId === null ? 'install' : 'team',
    model: row.model,
    provider: row.provider,
    ...renderRates(row.rates, row.tiers),
    source: row.source,
    set_by: row.setBy,
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
  };
}
