import type { Attribution } from '../../contracts/attribution.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { isOutage, type Pool } from '../../db/pool.ts';
import { listPoolsOf, type BudgetRow } from '../../db/queries/budgets.ts';
import type { BudgetWindow } from '../../db/queries/budget-slices.ts';

interface Known {
  budgets: readonly BudgetRow[];
  loadedAtMs: number;
}

/** A pool and the window of it that pays for a call. */
export interface PaidFrom extends BudgetWindow {
  budget: BudgetRow;
}

/** Older answers are refreshed while they are used … */
const FRESH_MS = 1_000;
/** … and not used any more when a refresh has not come for so long. */
const STALE_MS = 10_000;
const ENTRIES = 10_000;

/** Which pools pay for the calls of a key. A change is told by Postgres at once; the clocks are for when that is lost. */
export class BudgetPools {
  readonly #pool: Pool;
  readonly #known = new Map<string, Known>();
  readonly #loading = new Map<string, Promise<readonly BudgetRow[]>>();
  readonly #byId = new Map<string, BudgetRow>();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  of(attribution: Attribution): readonly BudgetRow[] | Promise<readonly BudgetRow[]> {
    const known = this.#known.get(attribution.keyId);
    const ageMs = known === undefined ? Number.POSITIVE_INFINITY : Date.now() - known.loadedAtMs;
    if (known === undefined || ageMs > STALE_MS) return this.#load(attribution);
    if (ageMs > FRESH_MS) this.#load(attribution).catch(() => undefined);
    return known.budgets;
  }

  /** A pool that paid for a call lately, as it was last read. */
  find(budgetId: string): BudgetRow | undefined {
    return this.#byId.get(budgetId);
  }

  /** Something changed: all are read anew when they are needed. */
  forget(): void {
    this.#known.clear();
    this.#loading.clear();
  }

  #load(attribution: Attribution): Promise<readonly BudgetRow[]> {
    const key = attribution.keyId;
    const running = this.#loading.get(key);
    if (running !== undefined) return running;
    const loading = listPoolsOf(this.#pool, attribution)
      .then(
        (budgets) => {
          this.#remember(budgets);
          // A change that came meanwhile may not be in this answer: it is not kept.
          if (this.#loading.get(key) === loading) this.#keep(key, budgets);
          return budgets;
        },
        (error: unknown) => {
          if (!isOutage(error)) throw error;
          throw new LonghaulError('database_unavailable', 'the budget cannot be checked', { cause: error });
        },
      )
      .finally(() => {
        if (this.#loading.get(key) === loading) this.#loading.delete(key);
      });
    this.#loading.set(key, loading);
    return loading;
  }

  #remember(budgets: readonly BudgetRow[]): void {
    if (this.#byId.size >= ENTRIES) this.#byId.clear();
    for (const budget of budgets) this.#byId.set(budget.id, budget);
  }

  #keep(key: string, budgets: readonly BudgetRow[]): void {
    if (this.#known.size >= ENTRIES) this.#known.clear();
    this.#known.set(key, { budgets, loadedAtMs: Date.now() });
  }
}

/** The window of a pool that pays for a call of now; null: it counts each call by itself, or has no part in this one. */
export function windowKeyOf(budget: BudgetRow, attribution: Attribution, atMs: number): string | null {
  switch (budget.period) {
    case 'total':
      return 'total';
    case 'month':
      return new Date(atMs).toISOString().slice(0, 7);
    case 'day':
      return new Date(atMs).toISOString().slice(0, 10);
    case 'session':
      return attribution.rootSessionId;
    case 'call':
      return null;
  }
}
