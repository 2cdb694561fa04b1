import type { BudgetEventKind } from '../../contracts/budgets.ts';
import { newId } from '../../contracts/ids.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { BudgetWindow } from './budget-slices.ts';

export interface BudgetEventDraft extends BudgetWindow {
  kind: BudgetEventKind;
  percent: number;
  limitMicros: number;
  spentMicros: number;
}

export interface BudgetEventRow extends BudgetEventDraft {
  id: string;
  createdAt: Date;
}

/** Tells something once for each window and limit: false when it was told before. */
export async function insertBudgetEvent(tx: Queryable, draft: BudgetEventDraft): Promise<boolean> {
  const result = await tx.query(
    `INSERT INTO budget_events (id, budget_id, window_key, kind, percent, limit_micros, spent_micros)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     ON CONFLICT (budget_id, window_key, kind, percent, limit_micros) DO NOTHING`,
    [
      newId('budgetEvent'),
      draft.budgetId,
      draft.windowKey,
      draft.kind,
      draft.percent,
      draft.limitMicros,
      draft.spentMicros,
    ],
  );
  return result.rowCount === 1;
}

/** What was told of a pool, newest first. */
export async function listBudgetEvents(
  db: Queryable,
  budgetId: string,
  page: PageRequest,
): Promise<Page<BudgetEventRow>> {
  const filter = new Filter().add('budget_id = ?', budgetId);
  const select =
    'SELECT id, budget_id, window_key, kind, percent, limit_micros, spent_micros, created_at FROM budget_events';
  return selectPage<BudgetEventRow>(db, select, filter, page);
}

/** Windows that changed lately: a gateway that died between counting and telling leaves one that nobody was told of. */
export async function listChangedWindows(
  db: Queryable,
  sinceMs: number,
  limit: number,
): Promise<(BudgetWindow & { spentMicros: number; teamId: string })[]> {
  const result = await db.query(
    `SELECT w.budget_id, w.window_key, w.spent_micros, b.team_id FROM budget_windows w JOIN budgets b ON b.id = w.budget_id
     WHERE w.updated_at > now() - make_interval(secs => $1 / 1000.0) ORDER BY w.updated_at DESC LIMIT $2`,
    [sinceMs, limit],
  );
  return result.rows.map((row) => toCamel<BudgetWindow & { spentMicros: number; teamId: string }>(row as object));
}
