import type { Attribution } from '../../contracts/attribution.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { BudgetRow } from '../../db/queries/budgets.ts';
import type { PriceBook } from '../prices/price-book.ts';
import { NO_USAGE } from '../usage/normalise.ts';
import type { BudgetAlerts } from './alerts.ts';
import type { Served } from '../providers/port.ts';
import { exceeded, Hold, type HoldPlan } from './hold.ts';
import { windowKeyOf, type BudgetPools, type PaidFrom } from './pools.ts';
import type { SliceBook } from './slices.ts';

/** What is known of a call before it is made. */
export interface ReserveRequest {
  attribution: Attribution;
  provider: string;
  model: string;
  /** Everybody who may come to answer: money is held for the dearest of them. */
  targets: readonly Served[];
  isStream: boolean;
  inputBytes: number;
  maxOutputTokens: number | null;
}

interface KeeperDeps {
  pools: BudgetPools;
  book: SliceBook;
  prices: PriceBook;
  alerts: BudgetAlerts;
  /** Output money is held for when the caller set no limit. */
  outputTokens: number;
}

/** About what a token of text has. */
const BYTES_PER_TOKEN = 4;

/** The input a request is held money for before anybody has counted its tokens. */
export function estimateInputTokens(inputBytes: number): number {
  return Math.ceil(inputBytes / BYTES_PER_TOKEN);
}

/** Lets calls through as far as the pools that pay for them have money. */
export class BudgetKeeper {
  readonly #deps: KeeperDeps;

  constructor(deps: KeeperDeps) {
    this.#deps = deps;
  }

  /** The model to call: another one than asked for where a pool has spent the share after which it degrades. */
  async planModel(attribution: Attribution, model: string): Promise<string> {
    const known = this.#deps.pools.of(attribution);
    const budgets = known instanceof Promise ? await known : known;
    for (const budget of budgets) {
      const { degradeTo, degradeAtPercent } = budget;
      if (degradeTo === null || degradeAtPercent === null || degradeTo === model) continue;
      const limitMicros = budget.hardLimitMicros ?? budget.softLimitMicros ?? 0;
      if (this.#spentOf(budget, attribution) * 100 >= limitMicros * degradeAtPercent) return degradeTo;
    }
    return model;
  }

  #spentOf(budget: BudgetRow, attribution: Attribution): number {
    const windowKey = windowKeyOf(budget, attribution, Date.now());
    if (windowKey === null) return 0;
    const loaded = budget.windowKey === windowKey ? budget.spentMicros : 0;
    return Math.max(loaded, this.#deps.book.spentOf({ budgetId: budget.id, windowKey }));
  }

  /**
   * Holds the money of a call in every pool that pays for it, or refuses. A stream may begin with less than it may cost
   * at most: it asks for more as it grows, and stops when there is none. Undefined: no pool pays for it.
   */
  async reserve(request: ReserveRequest): Promise<Hold | undefined> {
    const known = this.#deps.pools.of(request.attribution);
    const budgets = known instanceof Promise ? await known : known;
    if (budgets.length === 0) return undefined;
    const plan = this.#planOf(request, budgets);
    if (plan.bounded.length === 0 && plan.callLimit === undefined) {
      return plan.counted.length === 0 ? undefined : new Hold(plan, undefined);
    }
    const { fullMicros, minMicros } = this.#estimate(request, plan);
    const { callLimit } = plan;
    if (callLimit !== undefined && callLimit.micros < minMicros) throw exceeded(callLimit.budget);
    if (plan.bounded.length === 0) return new Hold(plan, undefined);
    const wanted = Math.min(fullMicros, callLimit?.micros ?? Number.POSITIVE_INFINITY);
    const taken = this.#deps.book.take(plan.bounded, wanted, minMicros);
    const answer = taken instanceof Promise ? await taken : taken;
    if ('lacking' in answer) {
      const { budgetId, windowKey } = answer.lacking;
      const paying = plan.bounded.find((window) => window.budgetId === budgetId && window.windowKey === windowKey);
      if (paying !== undefined) this.#deps.alerts.exhausted(paying, this.#deps.book.spentOf(paying));
      throw exceeded(paying?.budget);
    }
    plan.isFull = request.maxOutputTokens !== null && answer.micros >= fullMicros;
    return new Hold(plan, answer);
  }

  #planOf({ attribution, targets }: ReserveRequest, budgets: readonly BudgetRow[]): HoldPlan {
    const { prices, book, alerts } = this.#deps;
    const nowMs = Date.now();
    const bounded: PaidFrom[] = [];
    const counted: PaidFrom[] = [];
    let callLimit: HoldPlan['callLimit'];
    for (const budget of budgets) {
      const windowKey = windowKeyOf(budget, attribution, nowMs);
      const limit = budget.hardLimitMicros;
      if (windowKey !== null) (limit === null ? counted : bounded).push({ budgetId: budget.id, windowKey, budget });
      else if (budget.period === 'call' && limit !== null && limit < (callLimit?.micros ?? Number.POSITIVE_INFINITY)) {
        callLimit = { budget, micros: limit };
      }
    }
    const { teamId } = attribution;
    const price: HoldPlan['price'] = (usage, served) =>
      dearest((served === undefined ? targets : [served]).map((one) => prices.costMicros({ ...one, teamId }, usage)));
    return { book, alerts, bounded, counted, callLimit, price, isFull: false };
  }

  /** What the call may cost at most as far as can be known, and what must be there for it to begin. */
  #estimate(request: ReserveRequest, plan: HoldPlan): { fullMicros: number; minMicros: number } {
    const inputTokens = estimateInputTokens(request.inputBytes);
    const maxTokens = request.maxOutputTokens ?? this.#deps.outputTokens;
    const costOf = (outputTokens: number): number => {
      const cost = plan.price({ ...NO_USAGE, inputTokens, outputTokens }, undefined);
      if (cost !== null) return cost;
      throw new LonghaulError('model_not_budgetable', `model "${request.model}" has no price, and a budget applies`);
    };
    const fullMicros = costOf(maxTokens);
    // What does not stream cannot be stopped: all of it must be there.
    if (!request.isStream) return { fullMicros, minMicros: fullMicros };
    return { fullMicros, minMicros: costOf(Math.min(maxTokens, LIMITS.budgetMinOutputTokens)) };
  }
}

/** Null as soon as one is not known: nobody could say what the call may cost. */
function dearest(costs: readonly (number | null)[]): number | null {
  const known = costs.filter((cost) => cost !== null);
  return known.length === costs.length ? Math.max(...known) : null;
}
