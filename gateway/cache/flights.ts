import { randomBytes } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import type { AnswerKey, CachedAnswer } from '../../db/queries/cached-answers.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { AnswerStore } from './store.ts';

interface FlightsDeps {
  store: AnswerStore;
  logger: Logger;
  leaseMs: number;
}

/** What a request for an answer is to do. `alone`: make the call, and leave the cache out of it. */
export type Boarding = { kind: 'hit'; answer: CachedAnswer } | { kind: 'lead'; flight: Flight } | { kind: 'alone' };

const POLL_MIN_MS = 25;
const POLL_MAX_MS = 250;

/** One answer being made for all that ask for it meanwhile. Ends once: with an answer or without. */
export class Flight {
  readonly landed: Promise<boolean>;
  #land: (isKept: boolean) => void = () => undefined;
  #isOver = false;
  readonly #onLand: (answer: CachedAnswer | undefined, ttlMs: number) => Promise<boolean>;

  constructor(onLand: (answer: CachedAnswer | undefined, ttlMs: number) => Promise<boolean>) {
    this.#onLand = onLand;
    this.landed = new Promise((resolve) => {
      this.#land = resolve;
    });
  }

  /** The answer may be given to others for `ttlMs`. */
  keep(answer: CachedAnswer, ttlMs: number): void {
    this.#end(answer, ttlMs);
  }

  /** There is no answer that others may have. */
  drop(): void {
    this.#end(undefined, 0);
  }

  #end(answer: CachedAnswer | undefined, ttlMs: number): void {
    if (this.#isOver) return;
    this.#isOver = true;
    void this.#onLand(answer, ttlMs).then(this.#land);
  }
}

/**
 * Lets one of many equal requests make the call: in this process by a map, across processes by the lease of the answer's
 * row. The others wait for the answer. When there is none to share they go on by themselves, all at once.
 */
export class Flights {
  readonly #deps: FlightsDeps;
  readonly #owner = `gw_${randomBytes(12).toString('hex')}`;
  readonly #running = new Map<string, Flight>();
  readonly #renewal: NodeJS.Timeout;

  constructor(deps: FlightsDeps) {
    this.#deps = deps;
    this.#renewal = setInterval(() => void this.#renew(), Math.max(100, Math.floor(deps.leaseMs / 3)));
    this.#renewal.unref();
  }

  /** Waits at most `patienceMs` for an answer that is being made. */
  async board(at: AnswerKey, res: ServerResponse, patienceMs: number): Promise<Boarding> {
    const deadlineMs = Date.now() + patienceMs;
    for (let pollMs = POLL_MIN_MS; ; pollMs = Math.min(pollMs * 2, POLL_MAX_MS)) {
      const running = this.#running.get(at.key);
      if (running !== undefined) {
        const isKept = await Promise.race([running.landed, closed(res)]);
        if (!isKept) return { kind: 'alone' };
        continue;
      }
      const claim = await this.#deps.store.claim(at, { owner: this.#owner, leaseMs: this.#deps.leaseMs });
      if (claim.state === 'hit') return { kind: 'hit', answer: claim.answer };
      if (claim.state === 'owned') return { kind: 'lead', flight: this.#depart(at) };
      if (res.destroyed || Date.now() > deadlineMs) return { kind: 'alone' };
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }

  #depart(at: AnswerKey): Flight {
    const { store, logger } = this.#deps;
    const flight = new Flight(async (answer, ttlMs) => {
      try {
        if (answer === undefined) await store.release(at.key, this.#owner);
        else await store.complete(at, this.#owner, answer, ttlMs);
        return answer !== undefined;
      } catch (error) {
        // Its lease ends by itself.
        logger.warn({ err: error }, 'an answer could not be kept for later');
        return false;
      } finally {
        this.#running.delete(at.key);
      }
    });
    this.#running.set(at.key, flight);
    return flight;
  }

  /** Ends when what is on its way has been kept. */
  async close(): Promise<void> {
    clearInterval(this.#renewal);
    await Promise.all(
      Array.from(this.#running.values(), async (flight) => {
        flight.drop();
        await flight.landed;
      }),
    );
    await this.#deps.store.close();
  }

  async #renew(): Promise<void> {
    const keys = [...this.#running.keys()];
    if (keys.length === 0) return;
    try {
      await this.#deps.store.renew(keys, this.#owner, this.#deps.leaseMs);
    } catch (error) {
      this.#deps.logger.warn({ err: error, answers: keys.length }, 'leases of answers were not renewed');
    }
  }
}

function closed(res: ServerResponse): Promise<false> {
  return new Promise((resolve) => {
    if (res.destroyed) resolve(false);
    res.once('close', () => resolve(false));
  });
}
