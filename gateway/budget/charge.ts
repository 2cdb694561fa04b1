import type { Queryable } from '../../db/pool.ts';
import { changeWindows, ensureWindows } from '../../db/queries/budget-slices.ts';
import { listPoolsOf } from '../../db/queries/budgets.ts';
import type { LedgerEntry } from '../../db/queries/ledger.ts';
import { windowKeyOf } from './pools.ts';

/** Has the pools of now pay for something that was not held for: nobody could stop it any more. */
export async function chargePools(tx: Queryable, entry: LedgerEntry): Promise<void> {
  if (entry.costMicros === null || entry.costMicros === 0) return;
  const { attribution, costMicros } = entry;
  const budgets = await listPoolsOf(tx, attribution);
  const changes = budgets.flatMap((budget) => {
    const windowKey = windowKeyOf(budget, attribution, Date.now());
    return windowKey === null ? [] : [{ budgetId: budget.id, windowKey, spentMicros: costMicros, releasedMicros: 0 }];
  });
  if (changes.length === 0) return;
  await ensureWindows(tx, changes);
  await changeWindows(tx, '', changes);
}
