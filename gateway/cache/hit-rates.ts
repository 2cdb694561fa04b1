import type { Attribution } from '../../contracts/attribution.ts';
import type { Pool } from '../../db/pool.ts';
import { addCacheCounts, recordRateDrop, type CacheCount, type CacheLayer } from '../../db/queries/cache-counts.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { CacheConfig } from './config.ts';
import type { CacheMetrics } from './metrics.ts';

interface RatesDeps {
  pool: Pool;
  logger: Logger;
  metrics: CacheMetrics;
  alert: CacheConfig['alert'];
  /** Resolves when changes of prefixes seen so far are on record: they are what a fall is explained by. */
  prefixesKnown: () => Promise<void>;
}

/** Moving averages of one agent version in one layer; 1 is a hit. */
interface Averages {
  calls: number;
  slow: number;
  fast: number;
  /** Told once for each fall. */
  isDown: boolean;
}

const FLUSH_MS = 1_000;
const WATCHED = 10_000;
/** The recent rate is taken over this part of the calls of the average. */
const RECENT_PART = 5;

/** Counts hits and misses by layer and agent version, and tells when a rate falls. */
export class HitRates {
  readonly #deps: RatesDeps;
  readonly #averages = new Map<string, Averages>();
  readonly #timer: NodeJS.Timeout;
  #counts = new Map<string, CacheCount>();
  #writing: Promise<void> = Promise.resolve();

  constructor(deps: RatesDeps) {
    this.#deps = deps;
    this.#timer = setInterval(() => this.#flush(), FLUSH_MS);
    this.#timer.unref();
  }

  looked(layer: CacheLayer, attribution: Attribution, isHit: boolean): void {
    this.#deps.metrics.looked(layer, isHit);
    const { agentId, agentVersion, teamId } = attribution;
    if (agentId === null || agentVersion === null) return;
    const place = `${agentId}/${agentVersion}/${layer}`;
    const count = this.#counts.get(place) ?? { agentId, agentVersion, layer, hits: 0, misses: 0 };
    this.#counts.set(place, { ...count, hits: count.hits + (isHit ? 1 : 0), misses: count.misses + (isHit ? 0 : 1) });
    const fallen = this.#average(place, isHit);
    if (fallen === undefined) return;
    this.#deps.metrics.dropped(layer);
    const drop = { teamId, agentId, agentVersion, layer, average: fallen.slow, recent: fallen.fast };
    this.#later(async () => {
      await this.#deps.prefixesKnown();
      const prefixChangedAt = await recordRateDrop(this.#deps.pool, drop);
      this.#deps.logger.warn({ ...drop, prefixChangedAt }, 'cache hit rate has dropped');
    });
  }

  /** Ends when everything counted is written. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#flush();
    await this.#writing;
  }

  /** The averages when the recent rate has just fallen too far below the long one. */
  #average(place: string, isHit: boolean): Averages | undefined {
    const { drop, calls } = this.#deps.alert;
    const value = isHit ? 1 : 0;
    const before = this.#averages.get(place) ?? { calls: 0, slow: value, fast: value, isDown: false };
    const now: Averages = {
      calls: before.calls + 1,
      slow: before.slow + (value - before.slow) * (2 / (calls + 1)),
      fast: before.fast + (value - before.fast) * (2 / (calls / RECENT_PART + 1)),
      isDown: before.isDown,
    };
    const fall = now.slow - now.fast;
    // Half the way back ends a fall: a rate at the edge must not be told with every call.
    now.isDown = now.calls > calls && fall > (before.isDown ? drop / 2 : drop);
    if (this.#averages.size >= WATCHED) this.#averages.clear();
    this.#averages.set(place, now);
    return now.isDown && !before.isDown ? now : undefined;
  }

  #flush(): void {
    if (this.#counts.size === 0) return;
    const counts = [...this.#counts.values()];
    this.#counts = new Map();
    this.#later(() => addCacheCounts(this.#deps.pool, counts));
  }

  /** One write after the other; what cannot be written is told and lost: these are numbers to look at. */
  #later(work: () => Promise<void>): void {
    this.#writing = this.#writing.then(work).catch((error: unknown) => {
      this.#deps.logger.warn({ err: error }, 'numbers of the caches were not written');
    });
  }
}
