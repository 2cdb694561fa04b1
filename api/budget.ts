import type { BudgetLimit } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { isBudgetable } from '../contracts/prices.ts';

/** Refuses a budget for a model that has no list price: it could not be kept (invariant 8). */
export function requireBudgetable(model: string, budget: BudgetLimit | null | undefined, field: string): void {
  if (budget === null || budget === undefined || isBudgetable(model)) return;
  throw new LonghaulError('model_not_budgetable', `model ${model} has no list price`, { field });
}
