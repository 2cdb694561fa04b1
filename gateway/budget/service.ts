import type { Pool } from '../../db/pool.ts';
import { databaseUrlOf, listenOn } from '../../db/listen.ts';
import { BUDGETS_CHANNEL } from '../../db/queries/budgets.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { CallJournal, type SettledWindow } from '../calls/call-journal.ts';
import type { GatewayConfig } from '../config.ts';
import type { PriceBook } from '../prices/price-book.ts';
import { BudgetAlerts } from './alerts.ts';
import { BudgetKeeper } from './keeper.ts';
import { Owners } from './owner.ts';
import { BudgetPools } from './pools.ts';
import { SliceBook } from './slices.ts';
import { sweepDeadOwner } from './sweep.ts';

interface BudgetOptions {
  pool: Pool;
  logger: Logger;
  prices: PriceBook;
  config: GatewayConfig;
}

const GIVE_BACK_MS = 500;
const MISSED_MS = 30_000;
const LISTEN_AGAIN_MS = 1_000;
const MIN_BEAT_MS = 100;

/** Money of calls in this process: who pays, what is held, what is written, and the clocks that keep it true. */
export class BudgetService {
  readonly keeper: BudgetKeeper;
  readonly journal: CallJournal;
  readonly #options: BudgetOptions;
  readonly #owners: Owners;
  readonly #pools: BudgetPools;
  readonly #book: SliceBook;
  readonly #alerts: BudgetAlerts;
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #stopping = new AbortController();
  readonly #listening: Promise<void>;
  readonly #beats = new Set<Promise<void>>();

  constructor(options: BudgetOptions) {
    this.#options = options;
    const { pool, logger, prices } = options;
    const { leaseMs, timeouts, budgetOutputTokens: outputTokens } = options.config;
    this.#owners = new Owners(pool, logger, leaseMs);
    this.#pools = new BudgetPools(pool);
    this.#book = new SliceBook(pool, this.#owners, logger);
    this.#alerts = new BudgetAlerts(pool, logger);
    this.keeper = new BudgetKeeper({
      pools: this.#pools,
      book: this.#book,
      alerts: this.#alerts,
      prices,
      outputTokens,
    });
    this.journal = new CallJournal({
      pool,
      logger,
      owners: this.#owners,
      book: this.#book,
      patienceMs: timeouts.totalMs,
      onSettled: (windows) => this.#onSettled(windows),
    });
    const beatMs = Math.max(MIN_BEAT_MS, Math.floor(leaseMs / 3));
    this.#every(beatMs, 'the lease of this gateway was not renewed', () => this.#owners.renew());
    this.#every(beatMs, 'the progress of calls was not noted', () => this.journal.noteProgress());
    this.#every(beatMs, 'a dead gateway was not cleared up after', () => this.#sweep());
    this.#every(GIVE_BACK_MS, 'unused money was not given back', () => this.#book.giveBack());
    this.#every(MISSED_MS, 'missed budget events were not told', () => this.#alerts.tellMissed());
    this.#listening = this.#listen();
  }

  /** Writes and gives back everything. Calls must have ended. */
  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#stopping.abort();
    await Promise.all([this.#listening, ...this.#beats]);
    await this.journal.drain();
    await this.#alerts.drain();
    await this.#owners.close();
  }

  #onSettled(windows: readonly SettledWindow[]): void {
    for (const window of windows) {
      this.#book.noteSpent(window, window.spentMicros);
      const budget = this.#pools.find(window.budgetId);
      if (budget !== undefined) this.#alerts.spent(budget, window.windowKey, window.spentMicros);
    }
  }

  async #sweep(): Promise<void> {
    for (;;) {
      const swept = await sweepDeadOwner(this.#options.pool);
      if (swept === undefined) return;
      this.#options.logger.warn(swept, 'cleared up after a gateway that died');
    }
  }

  /** Runs at once and then again and again, one run at a time; the first of several failures is logged. */
  #every(periodMs: number, failure: string, work: () => Promise<void>): void {
    let isRunning = false;
    let hasFailed = false;
    const beat = async (): Promise<void> => {
      if (isRunning) return;
      isRunning = true;
      try {
        await work();
        hasFailed = false;
      } catch (error) {
        if (!hasFailed && !this.#stopping.signal.aborted) this.#options.logger.warn({ err: error }, failure);
        hasFailed = true;
      } finally {
        isRunning = false;
      }
    };
    const start = (): void => {
      const running = beat();
      this.#beats.add(running);
      void running.finally(() => this.#beats.delete(running));
    };
    start();
    const timer = setInterval(start, periodMs);
    timer.unref();
    this.#timers.push(timer);
  }

  async #listen(): Promise<void> {
    const { pool, logger } = this.#options;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await listenOn(databaseUrlOf(pool), [BUDGETS_CHANNEL], (_channel, payload) => this.#onNotice(payload), {
          applicationName: 'longhaul-gateway-budgets',
          signal,
          // What was told before is lost.
          onReady: () => this.#pools.forget(),
        });
      } catch (error) {
        logger.debug({ err: error }, 'changes of budgets are seen late: not listening');
      }
      if (!signal.aborted) await this.#pause();
    }
  }

  #pause(): Promise<void> {
    const { signal } = this.#stopping;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, LISTEN_AGAIN_MS);
      signal.addEventListener(
        'abort',
        () => {
          clearTimeout(timer);
          resolve();
        },
        { once: true },
      );
    });
  }

  #onNotice(payload: string): void {
    const [what, budgetId = '', from] = payload.split(':');
    if (what === 'changed') this.#pools.forget();
    else if (what === 'given') this.#book.wake();
    else if (what === 'wanted' && from !== this.#book.processTag) {
      this.#book.giveBack(budgetId).catch((error: unknown) => {
        this.#options.logger.warn({ err: error, budgetId }, 'money others want was not given back');
      });
    }
  }
}
