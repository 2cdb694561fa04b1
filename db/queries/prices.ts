import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { PriceTier, TokenRates } from '../../contracts/model-prices.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Told when a price is set or deleted; the payload says nothing. */
export const PRICES_CHANNEL = 'longhaul_prices';

/** A price somebody has set: a team's own, or (team null) everybody's. */
export interface PriceRow {
  id: string;
  teamId: string | null;
  provider: string | null;
  model: string;
  rates: TokenRates;
  tiers: PriceTier[];
  source: 'manual' | 'litellm';
  setBy: string;
  createdAt: Date;
  updatedAt: Date;
}

export interface PriceDraft {
  provider: string | null;
  model: string;
  rates: TokenRates;
  tiers: PriceTier[];
}

const COLUMNS = 'id, team_id, provider, model, rates, tiers, source, set_by, created_at, updated_at';

/** Sets prices, in place of those the same scope has for the same models. Returns them in the given order. */
export async function setPrices(
  tx: Queryable,
  scope: { teamId: string | null; setBy: string; source: PriceRow['source'] },
  drafts: readonly PriceDraft[],
): Promise<PriceRow[]> {
  const drafted = drafts.map((draft, index) => ({
    id: newId('price'),
    place: index,
    provider: draft.provider,
    model: draft.model,
    rates: draft.rates,
    tiers: draft.tiers,
  }));
  const result = await tx.query(
    `WITH told AS (SELECT pg_notify($5, ''))
     INSERT INTO model_prices AS p (id, team_id, provider, model, rates, tiers, source, set_by)
     SELECT d.id, $1, d.provider, d.model, d.rates, d.tiers, $2, $3
     FROM told, jsonb_to_recordset($4::jsonb) AS d
       (id text, place integer, provider text, model text, rates jsonb, tiers jsonb)
     ORDER BY d.place
     ON CONFLICT (team_id, provider, model) DO UPDATE SET rates = excluded.rates, tiers = excluded.tiers,
       source = excluded.source, set_by = excluded.set_by, updated_at = now()
     RETURNING ${COLUMNS}`,
    [scope.teamId, scope.source, scope.setBy, JSON.stringify(drafted), PRICES_CHANNEL],
  );
  await requireRoom(tx, scope.teamId);
  return result.rows.map((row) => toCamel<PriceRow>(row as object));
}

async function requireRoom(tx: Queryable, teamId: string | null): Promise<void> {
  const counted = await tx.query<{ count: number }>(
    'SELECT count(*)::int AS count FROM model_prices WHERE team_id IS NOT DISTINCT FROM $1',
    [teamId],
  );
  if ((counted.rows[0]?.count ?? 0) > LIMITS.pricesPerTeam) {
    throw new LonghaulError('invalid_request', `at most ${LIMITS.pricesPerTeam} prices can be set`);
  }
}

/** Prices a team has set and those of the installation, newest first. */
export async function listPrices(
  db: Queryable,
  where: { teamId: string; model?: string | undefined; provider?: string | undefined },
  page: PageRequest,
): Promise<Page<PriceRow>> {
  const filter = new Filter()
    .add('(team_id = ? OR team_id IS NULL)', where.teamId)
    .add('model = ?', where.model)
    .add('provider = ?', where.provider);
  return selectPage<PriceRow>(db, `SELECT ${COLUMNS} FROM model_prices`, filter, page);
}

/** One that the team can see. */
export async function getPrice(db: Queryable, teamId: string, id: string): Promise<PriceRow> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM model_prices WHERE id = $1 AND (team_id = $2 OR team_id IS NULL)`,
    [id, teamId],
  );
  return toCamel<PriceRow>(requireRow(result.rows[0] as object | undefined, `price ${id}`));
}

/** Deletes a price of exactly this scope; false when there is none. */
export async function deletePrice(tx: Queryable, teamId: string | null, id: string): Promise<boolean> {
  const result = await tx.query(
    `WITH gone AS (DELETE FROM model_prices WHERE id = $1 AND team_id IS NOT DISTINCT FROM $2 RETURNING id)
     SELECT id, pg_notify($3, '') FROM gone`,
    [id, teamId, PRICES_CHANNEL],
  );
  return result.rows.length === 1;
}

/** The price set for one of `models`, which are names of the same model, best first; provider null: whoever serves it. */
export async function findSetPrice(
  db: Queryable,
  where: { teamId: string; provider: string | null; models: string[] },
): Promise<PriceRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM model_prices
     WHERE (team_id = $1 OR team_id IS NULL) AND model = ANY($3) AND ($2::text IS NULL OR coalesce(provider, $2) = $2)
     ORDER BY team_id NULLS LAST, ($2::text IS NULL) = (provider IS NULL) DESC, array_position($3, model), provider
     LIMIT 1`,
    [where.teamId, where.provider, where.models],
  );
  return result.rows[0] === undefined ? undefined : toCamel<PriceRow>(result.rows[0] as object);
}

/** Everything that was ever set, for a process that keeps it in memory. */
export async function readAllPrices(
  db: Queryable,
): Promise<Pick<PriceRow, 'teamId' | 'provider' | 'model' | 'rates' | 'tiers'>[]> {
  const result = await db.query('SELECT team_id, provider, model, rates, tiers FROM model_prices');
  return result.rows.map((row) => toCamel<PriceRow>(row as object));
}

/** Changes whenever any price does. */
export async function priceRevision(db: Queryable): Promise<string> {
  const result = await db.query<{ revision: string }>(
    `SELECT count(*) || '/' || coalesce(sum(hashtextextended(id || updated_at::text || xmin::text, 0)::numeric), 0)
       AS revision FROM model_prices`,
  );
  return result.rows[0]?.revision ?? '';
}
