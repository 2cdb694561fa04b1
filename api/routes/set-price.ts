import { price, priceSet, ratesOf } from '../../contracts/price-overrides.ts';
import { requireRow } from '../../db/pool.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { setPrices } from '../../db/queries/prices.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';
import { renderPrice } from '../render/prices.ts';

export const setPrice = endpoint({
  method: 'post',
  path: '/v1/prices',
  tag: 'Prices',
  summary: 'Set what a model costs your team, in place of its list price',
  description:
    'A price the team has for the same model and provider is replaced. Calls that have ended keep their cost.',
  body: priceSet,
  response: price,
  async handle({ db, principal }, { body }) {
    requireUnlimitedKey(principal);
    const { teamId, userId } = principal;
    const draft = { provider: body.provider ?? null, model: body.model, ...ratesOf(body) };
    const rows = await setPrices(db, { teamId, setBy: userId, source: 'manual' }, [draft]);
    const row = requireRow(rows[0], `price of ${body.model}`);
    const details = { model: row.model, provider: row.provider };
    await insertAudit(db, { teamId, actor: actorOf(principal), action: 'price.set', resource: row.id, details });
    return renderPrice(row);
  },
});
