import type { Usage } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { BudgetWindow, WindowChange } from '../../db/queries/budget-slices.ts';
import type { BudgetRow } from '../../db/queries/budgets.ts';
import type { BudgetAlerts } from './alerts.ts';
import type { Owner } from './owner.ts';
import type { PaidFrom } from './pools.ts';
import type { Slice, SliceBook, Taken } from './slices.ts';

/** What a running call asks of its money. */
export interface CallBudget {
  /** False: what the answer has used costs more than is held; `extend` before it goes on. */
  covers(usage: Usage, model: PricedModel | undefined): boolean;
  /** Undefined: more money is held now. Else the reason to stop. */
  extend(): Promise<LonghaulError | undefined>;
}

/** Who answers, as prices are looked up. */
export interface PricedModel {
  provider: string;
  model: string;
}

/** What one call changes in the windows that pay for it, by whose slices its money came from. */
export interface OwnerChanges {
  owner: Owner | undefined;
  changes: WindowChange[];
}

export interface HoldPlan {
  book: SliceBook;
  alerts: BudgetAlerts;
  /** Windows with a hard limit: money is held there. */
  bounded: readonly PaidFrom[];
  /** Windows with a soft limit only: they are told what was spent. */
  counted: readonly PaidFrom[];
  /** The smallest limit of a single call. */
  callLimit: { budget: BudgetRow; micros: number } | undefined;
  price: (usage: Usage, model: PricedModel | undefined) => number | null;
  /** Everything the call may use is held: no need to ask for more ahead of time. */
  isFull: boolean;
}

/** Ask for more when this share of the hold is used. */
const LOW_SHARE = 0.75;
const PROBE_TOKENS = 1_000;

/** Money held for one call: it grows with the answer, and what is left goes back when the call has ended. */
export class Hold implements CallBudget {
  readonly #plan: HoldPlan;
  readonly #parts: Taken[];
  #costMicros = 0;
  #microsPerToken = 0;
  #inputTokens = -1;
  #recheckAtTokens = 0;
  #extending: Promise<LonghaulError | undefined> | undefined;
  #isSettled = false;

  constructor(plan: HoldPlan, taken: Taken | undefined) {
    this.#plan = plan;
    this.#parts = taken === undefined ? [] : [taken];
    for (const part of this.#parts) for (const owner of ownersOf(part)) owner.openCalls += 1;
  }

  /** The windows that pay. */
  get windows(): readonly PaidFrom[] {
    return [...this.#plan.bounded, ...this.#plan.counted];
  }

  covers(usage: Usage, model: PricedModel | undefined): boolean {
    const limitMicros = this.#limitMicros();
    if (limitMicros === Number.POSITIVE_INFINITY) return true;
    if (usage.inputTokens === this.#inputTokens && usage.outputTokens < this.#recheckAtTokens) return true;
    const cost = this.#plan.price(usage, model);
    if (cost === null) return true;
    const more = { ...usage, outputTokens: usage.outputTokens + PROBE_TOKENS };
    this.#costMicros = cost;
    this.#microsPerToken = Math.max(0, (this.#plan.price(more, model) ?? cost) - cost) / PROBE_TOKENS;
    this.#inputTokens = usage.inputTokens;
    const leftTokens = (limitMicros - cost) / Math.max(this.#microsPerToken, 1e-6);
    this.#recheckAtTokens = usage.outputTokens + Math.max(1, Math.floor(leftTokens * (1 - LOW_SHARE)));
    if (cost > limitMicros) return false;
    if (!this.#plan.isFull && cost > limitMicros * LOW_SHARE) void this.extend();
    return true;
  }

  extend(): Promise<LonghaulError | undefined> {
    this.#extending ??= this.#extend().finally(() => {
      this.#extending = undefined;
      this.#inputTokens = -1;
    });
    return this.#extending;
  }

  async #extend(): Promise<LonghaulError | undefined> {
    const { callLimit, bounded, book, alerts } = this.#plan;
    if (callLimit !== undefined && this.#costMicros > callLimit.micros) return exceeded(callLimit.budget);
    if (bounded.length === 0) return undefined;
    const lackingMicros = Math.max(0, this.#costMicros - this.#heldMicros());
    const full = lackingMicros + Math.ceil(this.#microsPerToken * LIMITS.budgetOutputTokens);
    const least = lackingMicros + Math.ceil(this.#microsPerToken * LIMITS.budgetMinOutputTokens);
    try {
      const answer = await book.take(bounded, full, least);
      if ('lacking' in answer) {
        const paying = bounded.find((window) => isSame(window, answer.lacking));
        if (paying !== undefined) alerts.exhausted(paying);
        return exceeded(paying?.budget);
      }
      this.#add(answer);
      return undefined;
    } catch (error) {
      return error instanceof LonghaulError ? error : new LonghaulError('internal', 'the budget cannot be checked');
    }
  }

  #add(answer: Taken): void {
    if (this.#isSettled) {
      this.#plan.book.settle(answer, 0);
      return;
    }
    const last = this.#parts.at(-1);
    if (last !== undefined && last.slices.every((slice, index) => slice === answer.slices[index])) {
      last.micros += answer.micros;
      return;
    }
    // The books were closed in between: the first part stays with the old ones until the call ends.
    this.#parts.push(answer);
    for (const owner of ownersOf(answer)) owner.openCalls += 1;
  }

  #heldMicros(): number {
    return this.#parts.reduce((sum, part) => sum + part.micros, 0);
  }

  #limitMicros(): number {
    const held = this.#plan.bounded.length === 0 ? Number.POSITIVE_INFINITY : this.#heldMicros();
    return Math.min(held, this.#plan.callLimit?.micros ?? Number.POSITIVE_INFINITY);
  }

  /** The call has ended and cost this much; what was held beyond that is free again at once. */
  settle(costMicros: number): OwnerChanges[] {
    this.#isSettled = true;
    const all: OwnerChanges[] = [];
    let rest = costMicros;
    for (const [index, part] of this.#parts.entries()) {
      const share = index === this.#parts.length - 1 ? rest : Math.min(rest, part.micros);
      rest -= share;
      const released = this.#plan.book.settle(part, share);
      const changes = part.slices.map((slice, at) => changeOf(slice, share, released[at] ?? 0));
      all.push({ owner: part.slices[0]?.owner, changes });
    }
    const { counted } = this.#plan;
    if (counted.length > 0) {
      all.push({ owner: undefined, changes: counted.map((window) => changeOf(window, costMicros, 0)) });
    }
    return all;
  }

  /** Owners that must live until what `settle` said is written. */
  owners(): Owner[] {
    return this.#parts.flatMap(ownersOf);
  }
}

/** The refusal of a call for which a pool has too little. */
export function exceeded(budget: BudgetRow | undefined): LonghaulError {
  const name = budget === undefined ? 'a budget' : `the ${budget.period} budget "${budget.name}" (${budget.id})`;
  return new LonghaulError('budget_exceeded', `${name} has too little left for this call`);
}

function ownersOf(taken: Taken): Owner[] {
  return [...new Set(taken.slices.map((slice: Slice) => slice.owner))];
}

function isSame(a: BudgetWindow, b: BudgetWindow): boolean {
  return a.budgetId === b.budgetId && a.windowKey === b.windowKey;
}

function changeOf(window: BudgetWindow, spentMicros: number, releasedMicros: number): WindowChange {
  return { budgetId: window.budgetId, windowKey: window.windowKey, spentMicros, releasedMicros };
}
