import { setTimeout as sleep } from 'node:timers/promises';
import type { Usage } from '../../contracts/definitions.ts';
import { fromNanos, priceCall, type DeploymentPrice, type ModelPrice } from '../../contracts/model-prices.ts';
import { listenOn } from '../../db/listen.ts';
import type { Pool } from '../../db/pool.ts';
import { PRICES_CHANNEL, priceRevision, readAllPrices } from '../../db/queries/prices.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { ListPrices, namesOf, type PriceBook, type PriceTarget } from './price-book.ts';

const POLL_MS = 10_000;
const RECONNECT_MS = 1_000;
const CACHE_ENTRIES = 5_000;

/** The price a deployment was configured with. */
type DeploymentPrices = (teamId: string, deployment: string) => DeploymentPrice | undefined;

/**
 * List prices with those that were set in the database before them. They are kept in memory: a notice says when to read
 * them again, a slow poll finds what a lost connection missed, and while Postgres is away the last ones hold.
 */
export class LivePrices implements PriceBook {
  readonly #list = new ListPrices();
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #ofDeployment: DeploymentPrices;
  readonly #stopping = new AbortController();
  #tasks: Promise<void>[] = [];
  #overrides = new Map<string, ModelPrice>();
  /** What was found in `overrides`; a running stream asks again and again. */
  readonly #found = new Map<string, ModelPrice | undefined>();
  #revision: string | undefined;
  #reading: Promise<void> | undefined;
  #isStale = false;

  constructor(pool: Pool, logger: Logger, ofDeployment: DeploymentPrices = () => undefined) {
    this.#pool = pool;
    this.#logger = logger;
    this.#ofDeployment = ofDeployment;
  }

  /** Follows the database until `close`. Ends when the prices have been read for the first time, or could not be. */
  start(): Promise<void> {
    this.#tasks = [this.#poll(), this.#listen()];
    return this.refresh();
  }

  find(target: PriceTarget): ModelPrice | undefined {
    const { teamId, model, deployment } = target;
    const configured = typeof deployment === 'string' ? this.#ofDeployment(teamId, deployment) : undefined;
    if (configured !== undefined) return { ...fromNanos(configured), modelId: model, source: 'override' };
    return (this.#overrides.size === 0 ? undefined : this.#findOverride(target)) ?? this.#list.find(target);
  }

  costMicros(target: PriceTarget, usage: Usage): number | null {
    const price = this.find(target);
    return price === undefined ? null : priceCall(price, usage);
  }

  /** Reads the prices now; a change that was committed before the call is known when it ends. */
  refresh(): Promise<void> {
    // A reading under way may have missed the change: another one follows it.
    this.#isStale = true;
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled([...this.#tasks, this.#reading]);
  }

  async #read(): Promise<void> {
    while (this.#isStale) {
      this.#isStale = false;
      try {
        const revision = await priceRevision(this.#pool);
        if (revision === this.#revision) continue;
        const rows = await readAllPrices(this.#pool);
        this.#overrides = new Map(
          rows.map(({ teamId, provider, model, rates, tiers }) => [
            keyOf(teamId, provider, model),
            { ...rates, tiers, modelId: model, source: 'override' },
          ]),
        );
        this.#found.clear();
        this.#revision = revision;
      } catch (error) {
        this.#logger.warn({ err: error }, 'prices were not read; the last ones hold');
      }
    }
  }

  /** A team's price goes before everybody's, one for the provider before one for whoever serves the model. */
  #findOverride(target: PriceTarget): ModelPrice | undefined {
    const key = `${target.teamId} ${target.provider ?? ''} ${target.model}`;
    if (this.#found.has(key)) return this.#found.get(key);
    const found = this.#lookUp(target);
    if (this.#found.size >= CACHE_ENTRIES) this.#found.clear();
    this.#found.set(key, found);
    return found;
  }

  #lookUp({ teamId, provider, model }: PriceTarget): ModelPrice | undefined {
    for (const team of [teamId, null]) {
      for (const by of provider === null ? [null] : [provider, null]) {
        for (const name of namesOf(model)) {
          const found = this.#overrides.get(keyOf(team, by, name));
          if (found !== undefined) return found;
        }
      }
    }
    return undefined;
  }

  async #poll(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await pause(POLL_MS, signal);
      if (!signal.aborted) await this.refresh();
    }
  }

  async #listen(): Promise<void> {
    const { signal } = this.#stopping;
    const databaseUrl = this.#pool.options.connectionString;
    if (databaseUrl === undefined) return;
    const read = (): void => void this.refresh();
    while (!signal.aborted) {
      try {
        const options = { applicationName: 'longhaul-prices', signal, onReady: read };
        await listenOn(databaseUrl, [PRICES_CHANNEL], read, options);
      } catch (error) {
        if (!signal.aborted) this.#logger.warn({ err: error }, 'connection for price notices lost; connecting again');
      }
      await pause(RECONNECT_MS, signal);
    }
  }
}

function keyOf(teamId: string | null, provider: string | null, model: string): string {
  return JSON.stringify([teamId, provider, model]);
}

async function pause(waitMs: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(waitMs, undefined, { signal });
  } catch {
    // Stopping.
  }
}
