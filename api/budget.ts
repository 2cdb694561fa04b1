import type { BudgetLimit } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import type { BudgetRow } from '../db/queries/budgets.ts';
import { findModelRoute } from '../db/queries/model-routes.ts';
import { findPrice } from './prices.ts';

/** Refuses a budget for a model that has no price: it could not be kept (invariant 8). */
export async function requireBudgetable(
  db: Queryable,
  teamId: string,
  asked: { model: string; budget: BudgetLimit | null | undefined; field: string },
): Promise<void> {
  const { model, budget, field } = asked;
  if (budget === null || budget === undefined) return;
  const unpriced = await findUnpriced(db, teamId, model);
  if (unpriced === undefined) return;
  const message = `model ${unpriced} has no price: set one with POST /v1/prices`;
  throw new LonghaulError('model_not_budgetable', message, { field });
}

/** A model without a price among those that may answer for a name; undefined when all have one. */
async function findUnpriced(db: Queryable, teamId: string, name: string): Promise<string | undefined> {
  const route = await findModelRoute(db, teamId, name);
  if (route === undefined) {
    return (await findPrice(db, { provider: null, model: name, teamId })) === undefined ? name : undefined;
  }
  for (const { provider, model, price } of route.spec.deployments) {
    if (price !== undefined) continue;
    if ((await findPrice(db, { provider, model, teamId })) === undefined) return model;
  }
  return undefined;
}

/**
 * Refuses changes to a pool that was made from the `budget` field of a session or a key, to one of the whole installation
 * that another team made, and to one that is archived.
 */
export function requireOwnBudget(row: BudgetRow, teamId: string, options: { evenArchived?: boolean } = {}): void {
  if (row.isManaged) {
    const holder = row.scopeKind === 'key' ? 'key' : 'session';
    throw new LonghaulError('invalid_request', `change the budget of the ${holder}`, { field: 'budget_id' });
  }
  if (row.teamId !== teamId) throw new LonghaulError('forbidden', 'another team made this budget');
  if (row.archivedAt !== null && options.evenArchived !== true) {
    throw new LonghaulError('archived', `budget ${row.id} is archived`);
  }
}
