import { randomBytes } from 'node:crypto';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { isMissingReference, isOutage, type Pool } from '../../db/pool.ts';
import {
  changeWindows,
  dropEmptySlices,
  ensureWindows,
  leaseSlices,
  type BudgetWindow,
} from '../../db/queries/budget-slices.ts';
import { BUDGETS_CHANNEL } from '../../db/queries/budgets.ts';
import { notify } from '../../db/listen.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Owner, Owners } from './owner.ts';

/** What this process has leased of one window and not given to a call. */
export interface Slice extends BudgetWindow {
  owner: Owner;
  freeMicros: number;
  /** Money of calls under way. */
  heldMicros: number;
  usedAtMs: number;
  /** Ask for this much ahead of need with the next lease. */
  topUpMicros: number;
  /** Postgres said there is no more; do not ask ahead of need before this time. */
  emptyUntilMs: number;
  /** As Postgres said last. */
  spentMicros: number;
  /** True when somebody else, or a call of ours, holds money of the window that may come back. */
  isContended: boolean;
}

/** Money wanted of several windows at once: all of `fullMicros`, or at least `minMicros`. */
interface Want {
  windows: readonly BudgetWindow[];
  slices: Slice[];
  fullMicros: number;
  minMicros: number;
  untilMs: number;
  /** Others were asked for what they do not use. */
  hasAsked: boolean;
  resolve: (answer: Taken | Lacking) => void;
  reject: (error: unknown) => void;
}

export interface Taken {
  slices: Slice[];
  micros: number;
}
/** The window that has too little. */
export interface Lacking {
  lacking: BudgetWindow;
}

const IDLE_MS = 1_000;
/** How long a call waits for money that others hold before it is refused. */
const PATIENCE_MS = 500;
const RETRY_MS = 50;
/** Money for so many more calls of the same size is asked for ahead of need. */
const CALLS_AHEAD = 4;
const EMPTY_PAUSE_MS = 1_000;
const KNOWN_WINDOWS = 50_000;

/**
 * The money this process holds, so that a call is let through without asking Postgres. Every micro-dollar in here is
 * counted as reserved there, so processes together never hold more than a pool has.
 */
export class SliceBook {
  readonly #pool: Pool;
  readonly #owners: Owners;
  readonly #logger: Logger;
  readonly #slices = new Map<string, Slice>();
  readonly #known = new Set<string>();
  /** Tells this process's own notices from those of others. */
  readonly processTag = randomBytes(6).toString('hex');
  #waiting: Want[] = [];
  #isPumping = false;
  #wakeUp: (() => void) | undefined;

  constructor(pool: Pool, owners: Owners, logger: Logger) {
    this.#pool = pool;
    this.#owners = owners;
    this.#logger = logger;
    owners.onRetired((owner) => this.#forget(owner));
  }

  /** At once where this process has the money, else after asking Postgres. */
  take(windows: readonly BudgetWindow[], fullMicros: number, minMicros: number): Taken | Promise<Taken | Lacking> {
    const slices = this.#find(windows);
    if (slices !== undefined && leastFree(slices) >= fullMicros) return this.#hand(slices, fullMicros);
    return new Promise((resolve, reject) => {
      const untilMs = Date.now() + PATIENCE_MS;
      this.#waiting.push({ windows, slices: [], fullMicros, minMicros, untilMs, hasAsked: false, resolve, reject });
      void this.#pump();
    });
  }

  /**
   * The call is over and cost this much. Returns what each window is to be told of its money: spent, and no longer
   * reserved. What an answer cost over its hold comes out of what this process has free, if there is any.
   */
  settle(taken: Taken, costMicros: number): number[] {
    return taken.slices.map((slice) => {
      slice.heldMicros -= taken.micros;
      if (slice.owner.isRetired) return taken.micros;
      const covered = Math.min(costMicros, taken.micros + slice.freeMicros);
      slice.freeMicros += taken.micros - covered;
      slice.usedAtMs = Date.now();
      this.#wakeUp?.();
      return covered;
    });
  }

  /** What Postgres said last of this window, if anything. */
  spentOf(window: BudgetWindow): number {
    return this.#slices.get(keyOf(window))?.spentMicros ?? 0;
  }

  noteSpent(window: BudgetWindow, spentMicros: number): void {
    const slice = this.#slices.get(keyOf(window));
    if (slice !== undefined) slice.spentMicros = spentMicros;
  }

  /** Makes the rows of windows this process has not met yet. */
  async ensure(windows: readonly BudgetWindow[]): Promise<void> {
    const fresh = windows.filter((window) => !this.#known.has(keyOf(window)));
    if (fresh.length === 0) return;
    await ensureWindows(this.#pool, fresh);
    if (this.#known.size > KNOWN_WINDOWS) this.#known.clear();
    for (const window of fresh) this.#known.add(keyOf(window));
  }

  /** Gives back what no call has asked for lately; of one budget, at once, when others need it. */
  async giveBack(wantedBudgetId?: string): Promise<void> {
    const idleBeforeMs = Date.now() - IDLE_MS;
    const given = new Map<Owner, { slice: Slice; micros: number }[]>();
    for (const [key, slice] of this.#slices) {
      const isDue = wantedBudgetId === undefined ? slice.usedAtMs < idleBeforeMs : slice.budgetId === wantedBudgetId;
      if (!isDue) continue;
      if (slice.freeMicros > 0) {
        given.set(slice.owner, [...(given.get(slice.owner) ?? []), { slice, micros: slice.freeMicros }]);
        slice.freeMicros = 0;
      } else if (slice.heldMicros === 0 && wantedBudgetId === undefined && !this.#isPumping) {
        this.#slices.delete(key);
        this.#known.delete(key);
      }
    }
    for (const [owner, parts] of given) await this.#return(owner, parts);
  }

  async #return(owner: Owner, parts: { slice: Slice; micros: number }[]): Promise<void> {
    const changes = parts.map(({ slice, micros }) => ({
      budgetId: slice.budgetId,
      windowKey: slice.windowKey,
      spentMicros: 0,
      releasedMicros: micros,
    }));
    try {
      await changeWindows(this.#pool, owner.id, changes);
      await dropEmptySlices(this.#pool, owner.id);
      const budgets = new Set(parts.map(({ slice }) => slice.budgetId));
      for (const budgetId of budgets) await notify(this.#pool, BUDGETS_CHANNEL, `given:${budgetId}`);
    } catch (error) {
      this.#logger.warn(
        { err: error },
        'unused money was not given back; it is when this process has settled its calls',
      );
      this.#owners.retire(owner);
    }
  }

  /** Others have given money back. */
  wake(): void {
    this.#wakeUp?.();
  }

  #forget(owner: Owner): void {
    for (const [key, slice] of this.#slices) {
      if (slice.owner !== owner) continue;
      slice.freeMicros = 0;
      this.#slices.delete(key);
    }
  }

  #find(windows: readonly BudgetWindow[]): Slice[] | undefined {
    const slices: Slice[] = [];
    for (const window of windows) {
      const slice = this.#slices.get(keyOf(window));
      if (slice === undefined) return undefined;
      slices.push(slice);
    }
    return slices;
  }

  #hand(slices: Slice[], micros: number): Taken {
    const nowMs = Date.now();
    for (const slice of slices) {
      slice.freeMicros -= micros;
      slice.heldMicros += micros;
      slice.usedAtMs = nowMs;
      if (slice.freeMicros < micros && slice.emptyUntilMs < nowMs) slice.topUpMicros = micros * CALLS_AHEAD;
    }
    if (slices.some((slice) => slice.topUpMicros > 0)) void this.#pump();
    return { slices, micros };
  }

  async #pump(): Promise<void> {
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      while (this.#waiting.length > 0 || this.#wantsTopUp()) {
        await this.#lease();
        this.#serve();
        // Who came meanwhile has not been asked for yet.
        if (this.#waiting.length > 0 && this.#waiting.every((want) => want.slices.length > 0)) await this.#pause();
      }
    } catch (error) {
      const waiting = this.#waiting.splice(0);
      const known = isOutage(error) ? new LonghaulError('database_unavailable', 'the budget cannot be checked') : error;
      for (const want of waiting) want.reject(known);
      if (waiting.length === 0) this.#logger.warn({ err: error }, 'money was not leased ahead of need');
    } finally {
      this.#isPumping = false;
    }
  }

  #wantsTopUp(): boolean {
    for (const slice of this.#slices.values()) if (slice.topUpMicros > 0) return true;
    return false;
  }

  /** One statement for all that wait. */
  async #lease(): Promise<void> {
    const owner = await this.#owners.current();
    // Who comes from here on waits for the next lease: his windows may have no rows yet, which looks like no money.
    const wants = [...this.#waiting];
    await this.ensure(wants.flatMap((want) => want.windows));
    const needs = new Map<Slice, { needMicros: number; extraMicros: number }>();
    for (const want of wants) {
      want.slices = want.windows.map((window) => this.#slice(window, owner));
      for (const slice of want.slices) {
        const need = needs.get(slice) ?? { needMicros: -slice.freeMicros, extraMicros: 0 };
        need.needMicros += want.fullMicros;
        need.extraMicros = Math.max(need.extraMicros, want.fullMicros * CALLS_AHEAD);
        needs.set(slice, need);
      }
    }
    for (const slice of this.#slices.values()) {
      if (slice.topUpMicros > 0 && !needs.has(slice))
        needs.set(slice, { needMicros: 0, extraMicros: slice.topUpMicros });
      slice.topUpMicros = 0;
    }
    const asks = [...needs].map(([slice, need]) => ({
      budgetId: slice.budgetId,
      windowKey: slice.windowKey,
      needMicros: Math.max(0, need.needMicros),
      extraMicros: need.extraMicros,
    }));
    if (asks.length === 0) return;
    let grants;
    try {
      grants = await leaseSlices(this.#pool, owner.id, asks);
    } catch (error) {
      this.#owners.retire(owner);
      // Taken for dead by others: this is tried again under a new name.
      if (isMissingReference(error)) return;
      throw error;
    }
    if (owner.isRetired) return;
    for (const grant of grants) {
      const slice = this.#slices.get(keyOf(grant));
      if (slice === undefined) continue;
      const need = Math.max(0, needs.get(slice)?.needMicros ?? 0);
      slice.freeMicros += grant.grantedMicros;
      slice.spentMicros = grant.spentMicros;
      slice.isContended = grant.reservedMicros > slice.freeMicros;
      if (grant.grantedMicros <= need) slice.emptyUntilMs = Date.now() + EMPTY_PAUSE_MS;
    }
  }

  #slice(window: BudgetWindow, owner: Owner): Slice {
    const known = this.#slices.get(keyOf(window));
    if (known !== undefined) return known;
    const slice: Slice = {
      budgetId: window.budgetId,
      windowKey: window.windowKey,
      owner,
      freeMicros: 0,
      heldMicros: 0,
      usedAtMs: Date.now(),
      topUpMicros: 0,
      emptyUntilMs: 0,
      spentMicros: 0,
      isContended: false,
    };
    this.#slices.set(keyOf(window), slice);
    return slice;
  }

  /** First come, first served: all that was asked for, else what there is if that is enough, else nothing. */
  #serve(): void {
    const nowMs = Date.now();
    const left: Want[] = [];
    for (const want of this.#waiting) {
      const { slices } = want;
      if (slices.some((slice) => slice.owner.isRetired)) {
        left.push(want);
        continue;
      }
      const lacking = slices.find((slice) => slice.freeMicros < want.minMicros);
      if (lacking === undefined && slices.length > 0) {
        want.resolve(this.#hand(slices, Math.min(want.fullMicros, leastFree(slices))));
      } else if (lacking !== undefined && (!lacking.isContended || nowMs >= want.untilMs)) {
        want.resolve({ lacking: { budgetId: lacking.budgetId, windowKey: lacking.windowKey } });
      } else left.push(want);
    }
    this.#waiting = left;
  }

  /** Until money comes back, here or elsewhere; others are asked for what they do not use. */
  async #pause(): Promise<void> {
    const lacking = new Set<string>();
    for (const want of this.#waiting) {
      if (want.hasAsked) continue;
      want.hasAsked = true;
      for (const slice of want.slices) if (slice.isContended) lacking.add(slice.budgetId);
    }
    for (const budgetId of lacking) await notify(this.#pool, BUDGETS_CHANNEL, `wanted:${budgetId}:${this.processTag}`);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, RETRY_MS);
      this.#wakeUp = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wakeUp = undefined;
  }
}

function leastFree(slices: readonly Slice[]): number {
  let least = Number.POSITIVE_INFINITY;
  for (const slice of slices) least = Math.min(least, slice.freeMicros);
  return least;
}

function keyOf(window: BudgetWindow): string {
  return `${window.budgetId}\n${window.windowKey}`;
}
