import { isDeadlock, isMissingReference, isOutage, withTransaction, type Pool, type Queryable } from '../../db/pool.ts';
import { changeWindows, type BudgetWindow } from '../../db/queries/budget-slices.ts';
import {
  deleteIntents,
  insertIntents,
  updateIntents,
  type CallIntent,
  type CallProgress,
} from '../../db/queries/call-intents.ts';
import { recordLedgerEntries, type LedgerEntry } from '../../db/queries/ledger.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { sumChanges } from '../budget/changes.ts';
import type { OwnerChanges } from '../budget/hold.ts';
import type { Owner, Owners } from '../budget/owner.ts';
import type { SliceBook } from '../budget/slices.ts';

/** A call in the journal. */
export interface OpenCall {
  id: string;
  intent: () => CallIntent;
  /** How far it has come; undefined: nothing new. */
  progress: () => CallProgress | undefined;
  /** Under which name its note was written, or tried to be. */
  owner?: Owner;
  /** While its note is being written. */
  noting?: Promise<void>;
  /** It is being settled: no note any more. */
  isClosing?: boolean;
}

/** What a call that has ended leaves: its ledger row, if it has one, and what it changes in the pools that pay. */
export interface Settlement {
  call: OpenCall;
  entry: LedgerEntry | undefined;
  changes: readonly OwnerChanges[];
}

/** A window as a settlement left it. */
export type SettledWindow = BudgetWindow & { spentMicros: number };

interface JournalDeps {
  pool: Pool;
  logger: Logger;
  owners: Owners;
  book: SliceBook;
  /** How long rows are kept for a database that is away. */
  patienceMs: number;
  onSettled: (windows: readonly SettledWindow[]) => void;
}

const RETRY_MS = 500;
/** Rows gather for this long: one commit for many calls. */
const FLUSH_MS = 20;
const MAX_BATCH = 500;

/** Runs database work again while Postgres is away or has picked it to end a deadlock, at most until `deadlineMs`. */
export async function throughOutages<T>(deadlineMs: number, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(isOutage(error) || isDeadlock(error)) || Date.now() + RETRY_MS > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/**
 * Writes what calls leave, in batches that nobody waits for: a note that a call is under way, how far it has come, and
 * in one transaction its ledger row with the money it spent and gives back. After kill -9 the notes are what is
 * charged.
 */
export class CallJournal {
  readonly #deps: JournalDeps;
  readonly #open = new Map<string, OpenCall>();
  #toNote: OpenCall[] = [];
  #toSettle: Settlement[] = [];
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> = Promise.resolve();
  #isFlushing = false;

  constructor(deps: JournalDeps) {
    this.#deps = deps;
  }

  /** A call begins. */
  open(call: OpenCall): void {
    this.#open.set(call.id, call);
    this.#toNote.push(call);
    this.#schedule();
  }

  /** A call has ended; its rows are written soon. */
  settle(settlement: Settlement): void {
    this.#toSettle.push(settlement);
    this.#schedule();
  }

  /** A row of something that was no call: it cost nothing and nobody pays. */
  record(entry: LedgerEntry): void {
    const call: OpenCall = { id: entry.id, intent: () => ({ entry, windows: [] }), progress: () => undefined };
    this.settle({ call, entry, changes: [] });
  }

  /** The same in a transaction of the caller's, who reports with `settled` when it has committed. */
  async settleIn(tx: Queryable, settlement: Settlement): Promise<SettledWindow[]> {
    return this.#write(tx, [settlement]);
  }

  /** To be awaited before `settleIn`: no note of the call is on its way after it. */
  async prepare({ call, changes }: Settlement): Promise<void> {
    call.isClosing = true;
    await call.noting;
    await this.#deps.book.ensure(changes.flatMap((change) => change.changes));
  }

  /** The transaction of a settlement has committed. */
  settled({ call, changes }: Settlement, windows: readonly SettledWindow[]): void {
    this.#open.delete(call.id);
    for (const { owner } of changes) if (owner !== undefined) this.#deps.owners.callEnded(owner);
    if (call.owner !== undefined) this.#deps.owners.callEnded(call.owner);
    if (windows.length > 0) this.#deps.onSettled(windows);
  }

  /** A settlement that could not be written: what it held goes back with everything else of that owner. */
  failed(settlement: Settlement): void {
    for (const { owner } of settlement.changes) if (owner !== undefined) this.#deps.owners.retire(owner);
    this.settled(settlement, []);
  }

  /** Notes how far the calls have come that run now. */
  async noteProgress(): Promise<void> {
    const progress = Array.from(this.#open.values(), (call) =>
      call.owner === undefined ? undefined : call.progress(),
    );
    const news = progress.filter((item) => item !== undefined);
    if (news.length > 0) await updateIntents(this.#deps.pool, news);
  }

  /** Resolves when everything handed over so far is written. */
  async drain(): Promise<void> {
    while (this.#toSettle.length > 0 || this.#isFlushing) await this.#flush();
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#isFlushing) return;
    const isFull = this.#toNote.length + this.#toSettle.length >= MAX_BATCH;
    this.#timer = setTimeout(() => void this.#flush(), isFull ? 0 : FLUSH_MS);
  }

  #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#isFlushing) return this.#flushing;
    this.#isFlushing = true;
    this.#flushing = this.#flushAll().finally(() => {
      this.#isFlushing = false;
      if (this.#toNote.length + this.#toSettle.length > 0) this.#schedule();
    });
    return this.#flushing;
  }

  async #flushAll(): Promise<void> {
    const settlements = this.#toSettle.splice(0, MAX_BATCH);
    for (const { call } of settlements) call.isClosing = true;
    // A call that has ended already needs no note.
    const calls = this.#toNote.splice(0).filter((call) => call.isClosing !== true);
    const noting = this.#note(calls);
    for (const call of calls) call.noting = noting;
    await noting;
    if (settlements.length > 0) await this.#settleAll(settlements);
  }

  async #note(calls: OpenCall[]): Promise<void> {
    if (calls.length === 0) return;
    const { owners, pool, logger } = this.#deps;
    let owner: Owner | undefined;
    try {
      owner = await owners.current();
      // Counted before the statement: whether it happened or not, the owner lives until these calls are settled.
      for (const call of calls) {
        owner.openCalls += 1;
        if (call.owner !== undefined) owners.callEnded(call.owner);
        call.owner = owner;
      }
      const intents = calls.map((call) => call.intent());
      await insertIntents(pool, owner.id, intents);
    } catch (error) {
      logger.warn({ err: error, calls: calls.length }, 'calls under way are noted later');
      if (owner !== undefined && isMissingReference(error)) owners.retire(owner);
      this.#toNote.push(...calls);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  async #settleAll(settlements: Settlement[]): Promise<void> {
    const untilMs = Date.now() + this.#deps.patienceMs;
    const windows = settlements.flatMap(({ changes }) => changes.flatMap((change) => change.changes));
    try {
      const settled = await throughOutages(untilMs, async () => {
        await this.#deps.book.ensure(windows);
        return withTransaction(this.#deps.pool, (tx) => this.#write(tx, settlements));
      });
      for (const [index, settlement] of settlements.entries()) this.settled(settlement, index === 0 ? settled : []);
    } catch (error) {
      // One row that cannot be written must not take the others with it.
      if (settlements.length > 1 && !isOutage(error)) {
        for (const settlement of settlements) await this.#settleAll([settlement]);
        return;
      }
      const rows = settlements.map(({ entry }) => entry);
      this.#deps.logger.error({ err: error, ledger: rows }, 'ledger rows lost: they could not be written');
      for (const settlement of settlements) this.failed(settlement);
    }
  }

  async #write(tx: Queryable, settlements: readonly Settlement[]): Promise<SettledWindow[]> {
    const entries = settlements.flatMap(({ entry }) => entry ?? []);
    const recorded = entries.length === 0 ? new Set<string>() : await recordLedgerEntries(tx, entries);
    const noted = settlements.filter(({ call }) => call.owner !== undefined).map(({ call }) => call.id);
    if (noted.length > 0) await deleteIntents(tx, noted);
    // A row that is there already was paid for when it was written: the answer to that commit was lost.
    const paid = settlements.filter(({ entry }) => entry !== undefined && recorded.has(entry.id));
    const byOwner = new Map<string, OwnerChanges['changes']>();
    for (const { owner, changes } of paid.flatMap((settlement) => settlement.changes)) {
      const id = owner?.id ?? '';
      byOwner.set(id, [...(byOwner.get(id) ?? []), ...changes]);
    }
    const windows: SettledWindow[] = [];
    for (const [owner, changes] of byOwner) {
      const due = sumChanges(changes).filter((change) => change.spentMicros > 0 || change.releasedMicros > 0);
      if (due.length > 0) windows.push(...(await changeWindows(tx, owner, due)));
    }
    return windows;
  }
}
