import { LonghaulError } from '../contracts/error-codes.ts';
import { isBudgetable } from '../contracts/prices.ts';
import type { Queryable } from '../db/pool.ts';
import { findSessionSpend } from '../db/queries/virtual-keys.ts';
import type { Caller } from './auth.ts';

const MICROS_PER_CENT = 10_000;

/** Refuses a call of a session that has used up its budget, or whose cost could not be known. */
export async function checkBudget(db: Queryable, caller: Caller, model: string): Promise<void> {
  const { sessionId } = caller.attribution;
  if (sessionId === null || caller.virtualKey?.hasBudget !== true) return;
  if (!isBudgetable(model)) {
    throw new LonghaulError('model_not_budgetable', `model "${model}" has no price, and the session has a budget`);
  }
  const spend = await findSessionSpend(db, sessionId);
  if (spend === undefined) return;
  const limitMicros = Number(spend.budget.max_list_cost.amount) * MICROS_PER_CENT;
  // An amount that is no number is never above what was spent: it refuses.
  if (!(spend.spentMicros < limitMicros)) {
    throw new LonghaulError('budget_exceeded', `the session has spent its budget of ${limitMicros} micro-dollars`);
  }
}
