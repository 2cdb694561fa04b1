import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import { isUniqueViolation, withTransaction } from '../../db/pool.ts';
import type { EgressRequestDraft } from '../../db/queries/egress-requests.ts';
import {
  countEgressRefusals,
  endEgressRequests,
  insertEgressRequests,
  lastEgressSeq,
} from '../../db/queries/egress-requests.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { countIn, RefusalCounts } from './refusals.ts';

/** What is known of a request when it is decided. */
export type AuditStart = Pick<
  EgressRequestDraft,
  | 'sandboxId'
  | 'sessionId'
  | 'teamId'
  | 'state'
  | 'decision'
  | 'rule'
  | 'code'
  | 'method'
  | 'host'
  | 'port'
  | 'isTls'
  | 'path'
  | 'status'
  | 'credentials'
  | 'approvalId'
>;

/** A row on its way: not written, written as started, written with its end. */
export interface AuditEntry {
  readonly row: EgressRequestDraft;
  written: 'no' | 'started' | 'ended';
  /** Its end came and has to be written. */
  isEnded: boolean;
}

const FLUSH_MS = 100;
const RETRY_MS = 500;
/** Counts of rows that are there already may be so late. */
const COUNTS_MS = 1_000;
const BATCH_ROWS = 500;
const DURABLE_MS = 10_000;

/**
 * Writes the audit of the network: numbers without a gap for each sandbox, in batches, one after the other. What must be on
 * disk before bytes leave waits for its batch.
 */
export class AuditWriter {
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #nextSeq = new Map<string, number>();
  #fresh: AuditEntry[] = [];
  #ended = new Set<AuditEntry>();
  /** Rows whose count grew since it was written. */
  #counted = new Set<AuditEntry>();
  readonly #refusals: RefusalCounts;
  readonly #onCounted: () => void;
  #waiters: { entry: AuditEntry; done: () => void }[] = [];
  #timer: NodeJS.Timeout | undefined;
  #dueMs = 0;
  #running: Promise<void> | undefined;
  #lastMicros = 0;
  #dropped = 0;

  constructor(
    pool: Pool,
    logger: Logger,
    { onCounted, nowMs = Date.now }: { onCounted?: () => void; nowMs?: () => number } = {},
  ) {
    this.#pool = pool;
    this.#logger = logger;
    this.#refusals = new RefusalCounts(nowMs);
    this.#onCounted = onCounted ?? ((): void => undefined);
  }

  /** To be called once for a sandbox before its first request. */
  async open(sandboxId: string): Promise<void> {
    if (this.#nextSeq.has(sandboxId)) return;
    const last = await lastEgressSeq(this.#pool, sandboxId);
    if (!this.#nextSeq.has(sandboxId)) this.#nextSeq.set(sandboxId, last + 1);
  }

  /** The sandbox is gone: its next number need not be held. */
  release(sandboxId: string): void {
    this.#refusals.forget(sandboxId);
    if (!this.#fresh.some(({ row }) => row.sandboxId === sandboxId)) this.#nextSeq.delete(sandboxId);
  }

  /** True when so much waits to be written that nothing more may go out. */
  get isFull(): boolean {
    return this.waiting >= LIMITS.egressAuditWaiting;
  }

  /** Rows that are not written yet. */
  get waiting(): number {
    return this.#fresh.length + this.#ended.size;
  }

  /** A new row; for a refusal too many the row it is counted in. */
  start(given: AuditStart): AuditEntry {
    const shared = given.state === 'denied' ? this.#refusals.find(given) : null;
    if (shared !== null) return this.#count(shared, given);
    const isDropped = this.#mustDrop(given);
    const seq = this.#nextSeq.get(given.sandboxId) ?? 1;
    if (!isDropped) this.#nextSeq.set(given.sandboxId, seq + 1);
    const createdAt = this.#now();
    const isOver = given.state === 'denied';
    const row: EgressRequestDraft = {
      ...given,
      id: newId('egressRequest'),
      seq,
      bytesIn: 0,
      bytesOut: 0,
      durationMs: isOver ? 0 : null,
      error: null,
      count: 1,
      createdAt,
      endedAt: isOver ? createdAt : null,
    };
    const entry: AuditEntry = { row, written: 'no', isEnded: isOver };
    if (isDropped) return entry;
    if (isOver) this.#refusals.began(given, entry);
    this.#fresh.push(entry);
    this.#schedule(FLUSH_MS);
    return entry;
  }

  #count(entry: AuditEntry, given: AuditStart): AuditEntry {
    countIn(entry, given);
    entry.row.endedAt = this.#now();
    this.#onCounted();
    this.#counted.add(entry);
    this.#schedule(COUNTS_MS);
    return entry;
  }

  /** Refusals go on when the database is away, and a sandbox can make any number of them: they may not fill the memory. */
  #mustDrop({ state, sandboxId }: AuditStart): boolean {
    if (state !== 'denied' || this.waiting < 2 * LIMITS.egressAuditWaiting) return false;
    if (this.#dropped === 0)
      this.#logger.error({ sandboxId }, 'refusals are not recorded any more: too many rows wait');
    this.#dropped += 1;
    return true;
  }

  end(entry: AuditEntry, change: Partial<EgressRequestDraft>): void {
    if (entry.isEnded) return;
    Object.assign(entry.row, change, { endedAt: this.#now() });
    entry.isEnded = true;
    if (entry.written === 'started') this.#ended.add(entry);
    this.#schedule(FLUSH_MS);
  }

  /** Comes back when the row is on disk; throws when that takes too long. */
  async durable(entry: AuditEntry): Promise<void> {
    if (entry.written !== 'no') return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(
        () => reject(new LonghaulError('database_unavailable', 'the audit cannot be written')),
        DURABLE_MS,
      );
    });
    const written = new Promise<void>((done) => this.#waiters.push({ entry, done }));
    this.#schedule(0);
    try {
      await Promise.race([written, late]);
    } finally {
      clearTimeout(timer);
      this.#waiters = this.#waiters.filter((waiter) => waiter.entry !== entry);
    }
  }

  /** Writes all that waits; gives up after a while when the database is away. */
  async close(): Promise<void> {
    const until = Date.now() + DURABLE_MS;
    while ((this.waiting > 0 || this.#counted.size > 0) && Date.now() < until) await this.#flush();
    clearTimeout(this.#timer);
  }

  #schedule(delayMs: number): void {
    if (this.#running !== undefined) return;
    const dueMs = performance.now() + delayMs;
    if (this.#timer !== undefined && delayMs > 0 && this.#dueMs <= dueMs) return;
    this.#dueMs = dueMs;
    clearTimeout(this.#timer);
    if (delayMs === 0) {
      this.#timer = undefined;
      void this.#flush();
      return;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#flush();
    }, delayMs);
    this.#timer.unref();
  }

  /** One batch at a time: what came meanwhile is the next. */
  #flush(): Promise<void> {
    this.#running ??= this.#runBatch();
    return this.#running;
  }

  async #runBatch(): Promise<void> {
    const isDone = await this.#writeBatch();
    this.#running = undefined;
    if (this.#waiters.length > 0 && isDone) this.#schedule(0);
    else if (this.waiting > 0) this.#schedule(isDone ? FLUSH_MS : RETRY_MS);
    else if (this.#counted.size > 0) this.#schedule(COUNTS_MS);
  }

  async #writeBatch(): Promise<boolean> {
    const fresh = this.#fresh.slice(0, BATCH_ROWS);
    const ended = [...this.#ended].slice(0, BATCH_ROWS);
    const counted = [...this.#counted].filter(({ written }) => written !== 'no').slice(0, BATCH_ROWS);
    if (fresh.length === 0 && ended.length === 0 && counted.length === 0) return true;
    for (const entry of counted) this.#counted.delete(entry);
    // What is in the statement, not what may be in the row when the statement is done.
    const overNow = new Set(fresh.filter((entry) => entry.isEnded));
    try {
      await withTransaction(this.#pool, async (tx) => {
        await insertEgressRequests(
          tx,
          fresh.map(({ row }) => row),
        );
        await endEgressRequests(
          tx,
          ended.map(({ row }) => row),
        );
        await countEgressRefusals(
          tx,
          counted.map(({ row }) => row),
        );
      });
    } catch (error) {
      for (const entry of counted) this.#counted.add(entry);
      if (isUniqueViolation(error)) await this.#renumber(fresh);
      else
        this.#logger.error({ err: error, rows: fresh.length }, 'the audit of the network is not written; tried again');
      return false;
    }
    this.#noteDropped();
    this.#fresh.splice(0, fresh.length);
    for (const entry of ended) this.#ended.delete(entry);
    for (const entry of ended) entry.written = 'ended';
    for (const entry of fresh) this.#noteWritten(entry, overNow.has(entry));
    return true;
  }

  #noteDropped(): void {
    if (this.#dropped > 0) this.#logger.error({ count: this.#dropped }, 'refusals were not recorded');
    this.#dropped = 0;
  }

  #noteWritten(entry: AuditEntry, wasOver: boolean): void {
    entry.written = wasOver ? 'ended' : 'started';
    if (!wasOver && entry.isEnded) this.#ended.add(entry);
    for (const waiter of this.#waiters) if (waiter.entry === entry) waiter.done();
  }

  /** Another process wrote for the same sandbox: what is not written goes on after its last number. */
  async #renumber(batch: readonly AuditEntry[]): Promise<void> {
    try {
      for (const sandboxId of new Set(batch.map(({ row }) => row.sandboxId))) {
        let next = (await lastEgressSeq(this.#pool, sandboxId)) + 1;
        for (const { row } of this.#fresh) {
          if (row.sandboxId !== sandboxId) continue;
          row.seq = next;
          next += 1;
        }
        this.#nextSeq.set(sandboxId, next);
      }
    } catch (error) {
      this.#logger.error({ err: error }, 'the audit of the network cannot be numbered; tried again');
    }
  }

  /** Times that only grow, so that requests keep their order when they are listed by time. */
  #now(): string {
    this.#lastMicros = Math.max(this.#lastMicros + 1, Date.now() * 1_000);
    const micros = String(this.#lastMicros % 1_000).padStart(3, '0');
    return new Date(Math.floor(this.#lastMicros / 1_000)).toISOString().replace('Z', `${micros}Z`);
  }
}
