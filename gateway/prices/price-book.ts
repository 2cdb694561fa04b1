import type { Usage } from '../../contracts/definitions.ts';
import { priceCall, type ModelPrice } from '../../contracts/model-prices.ts';
import { findLibraryPrice } from './library.ts';
import { findTablePrice } from './table.ts';

/** Whose price is asked for. */
export interface PriceTarget {
  /** The kind of upstream that answers (`anthropic`, `bedrock`, …); null while that is open: the model's own vendor. */
  provider: string | null;
  /** As the provider knows it. */
  model: string;
  teamId: string;
  /** The configured deployment that answers, where there is one: it may have a price of its own. */
  deployment?: string | null | undefined;
}

/** Prices of all models, in memory: neither method waits for anything. */
export interface PriceBook {
  /** Undefined: the model has no price, so no budget can be kept with it. */
  find(target: PriceTarget): ModelPrice | undefined;
  /** What the tokens cost at list price in whole micro-dollars, rounded up; null when the model has no price. */
  costMicros(target: PriceTarget, usage: Usage): number | null;
}

/** Prices of the library may hold for hours of a day, so what was looked up is good for a moment only. */
const CACHE_MS = 30_000;
const CACHE_ENTRIES = 5_000;

/** Prices that come with the product: our table, then the library. */
export class ListPrices implements PriceBook {
  readonly #cache = new Map<string, { price: ModelPrice | undefined; untilMs: number }>();

  find({ provider, model }: PriceTarget): ModelPrice | undefined {
    const key = `${provider ?? ''} ${model}`;
    const nowMs = Date.now();
    const cached = this.#cache.get(key);
    if (cached !== undefined && cached.untilMs > nowMs) return cached.price;
    const price = this.#lookUp(provider, model, nowMs);
    if (this.#cache.size >= CACHE_ENTRIES) this.#cache.clear();
    this.#cache.set(key, { price, untilMs: nowMs + CACHE_MS });
    return price;
  }

  costMicros(target: PriceTarget, usage: Usage): number | null {
    const price = this.find(target);
    return price === undefined ? null : priceCall(price, usage);
  }

  #lookUp(provider: string | null, model: string, nowMs: number): ModelPrice | undefined {
    const names = namesOf(model);
    for (const name of names) {
      const price = findTablePrice(provider, name);
      if (price !== undefined) return price;
    }
    for (const name of names) {
      const price = findLibraryPrice(provider, name, nowMs);
      if (price !== undefined) return price;
    }
    return undefined;
  }
}

/** What a price may be listed under: a dated snapshot costs what its model costs, unless it has a price of its own. */
export function namesOf(model: string): string[] {
  const name = model.replace(/^(anthropic|openai)\//, '');
  const undated = name.replace(/[-@](\d{8}|\d{4}-\d{2}-\d{2})$/, '');
  return [...new Set([model, name, undated])];
}
