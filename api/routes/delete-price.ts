import { LonghaulError } from '../../contracts/error-codes.ts';
import { priceDeleted, pricePath } from '../../contracts/price-overrides.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { deletePrice as remove, getPrice } from '../../db/queries/prices.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';

export const deletePrice = endpoint({
  method: 'delete',
  path: '/v1/prices/{price_id}',
  tag: 'Prices',
  summary: 'Delete a price your team has set; the list price counts again',
  params: pricePath,
  response: priceDeleted,
  async handle({ db, principal }, { params }) {
    requireUnlimitedKey(principal);
    const { teamId } = principal;
    const row = await getPrice(db, teamId, params.price_id);
    if (row.teamId === null) throw new LonghaulError('forbidden', 'a price of the installation is its operator’s');
    await remove(db, teamId, row.id);
    const details = { model: row.model, provider: row.provider };
    await insertAudit(db, { teamId, actor: actorOf(principal), action: 'price.delete', resource: row.id, details });
    return { id: row.id, type: 'price_deleted' as const };
  },
});
