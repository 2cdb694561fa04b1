import type { BudgetLimit } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import type { BudgetRow } from '../db/queries/budgets.ts';
import { findPrice } from './prices.ts';

/** Refuses a budget for a model that has no price: it could not be kept (invariant 8). */
export async function requireBudgetable(
  db: Queryable,
  teamId: string,
  asked: { model: string; budget: BudgetLimit | null | undefined; field: string },
): Promise<void> {
  const { model, budget, field } = asked;
  if (budget === null || budget === undefined) return;
  if ((await findPrice(db, { provider: null, model, teamId })) !== undefined) return;
  throw new LonghaulError('model_not_budgetable', `model ${model} has no price: set one with POST /v1/prices`, {
    field,
  });
}

/** Refuses changes to a pool that was made from the `budget` field of a session or a key, and to one that is archived. */
export function requireOwnBudget(row: BudgetRow, options: { evenArchived?: boolean } = {}): void {
  if (row.isManaged)
    throw new LonghaulError(
      'invalid_request',
      `change the budget of the ${row.scopeKind === 'key' ? 'key' : 'session'}`,
      { field: 'budget_id' },
    );
  if (row.archivedAt !== null && options.evenArchived !== true) {
    throw new LonghaulError('archived', `budget ${row.id} is archived`);
  }
}
