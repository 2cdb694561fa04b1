import { Counter, Registry } from 'prom-client';
import type { CacheLayer } from '../../db/queries/cache-counts.ts';

/** Numbers of the caches. The hit rate of a layer is hits through all lookups. */
export class CacheMetrics {
  readonly #lookups: Counter<'layer' | 'result'>;
  readonly #prefixChanges: Counter;
  readonly #belowMinimum: Counter;
  readonly #ignored: Counter;
  readonly #drops: Counter<'layer'>;

  constructor(registry: Registry = new Registry()) {
    const registers = [registry];
    this.#lookups = new Counter({
      name: 'longhaul_cache_lookups_total',
      help: 'Calls a cache could answer (prompt: at the provider), by layer and result',
      labelNames: ['layer', 'result'],
      registers,
    });
    this.#prefixChanges = new Counter({
      name: 'longhaul_prompt_prefix_changes_total',
      help: 'New static prefixes within an agent version',
      registers,
    });
    this.#belowMinimum = new Counter({
      name: 'longhaul_prompt_prefix_below_minimum_total',
      help: 'Calls whose static prefix is too short for the model to be cached',
      registers,
    });
    this.#ignored = new Counter({
      name: 'longhaul_prompt_breakpoints_ignored_total',
      help: 'Calls with breakpoints and a long enough prompt of which the provider neither read nor cached anything',
      registers,
    });
    this.#drops = new Counter({
      name: 'longhaul_cache_hit_rate_drops_total',
      help: 'Times the hit rate of an agent version fell below its own average, by layer',
      labelNames: ['layer'],
      registers,
    });
  }

  looked(layer: CacheLayer, isHit: boolean): void {
    this.#lookups.inc({ layer, result: isHit ? 'hit' : 'miss' });
  }

  prefixChanged(): void {
    this.#prefixChanges.inc();
  }

  prefixBelowMinimum(): void {
    this.#belowMinimum.inc();
  }

  breakpointsIgnored(): void {
    this.#ignored.inc();
  }

  dropped(layer: CacheLayer): void {
    this.#drops.inc({ layer });
  }
}
