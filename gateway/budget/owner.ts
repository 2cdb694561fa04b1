import { randomBytes } from 'node:crypto';
import { withTransaction, type Pool } from '../../db/pool.ts';
import { insertOwner, releaseOwner, renewOwners } from '../../db/queries/budget-slices.ts';
import type { Logger } from '../../telemetry/logger.ts';

/** Under which name this process holds money and calls. A name is given up when its books may be wrong. */
export interface Owner {
  id: string;
  /** Calls that are not settled yet. */
  openCalls: number;
  /** No new call or slice; it ends, and all it holds goes back, with its last call. */
  isRetired: boolean;
}

/** Registers this process with Postgres and keeps its lease; others clear up after it when the lease runs out. */
export class Owners {
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #leaseMs: number;
  readonly #live = new Set<Owner>();
  #current: Promise<Owner> | undefined;
  #onRetired: (owner: Owner) => void = () => undefined;

  constructor(pool: Pool, logger: Logger, leaseMs: number) {
    this.#pool = pool;
    this.#logger = logger;
    this.#leaseMs = leaseMs;
  }

  onRetired(listener: (owner: Owner) => void): void {
    this.#onRetired = listener;
  }

  /** The name new calls and slices go under. */
  current(): Promise<Owner> {
    this.#current ??= this.#register().catch((error: unknown) => {
      this.#current = undefined;
      throw error;
    });
    return this.#current;
  }

  async #register(): Promise<Owner> {
    const owner: Owner = { id: `gwb_${randomBytes(12).toString('hex')}`, openCalls: 0, isRetired: false };
    await insertOwner(this.#pool, owner.id, this.#leaseMs);
    this.#live.add(owner);
    return owner;
  }

  /** A statement may or may not have happened: what Postgres says of this owner is released as a whole in the end. */
  retire(owner: Owner): void {
    if (owner.isRetired) return;
    owner.isRetired = true;
    this.#current = undefined;
    this.#onRetired(owner);
    this.#releaseIfDone(owner);
  }

  /** A call of this owner is settled. */
  callEnded(owner: Owner): void {
    owner.openCalls -= 1;
    this.#releaseIfDone(owner);
  }

  async renew(): Promise<void> {
    if (this.#live.size === 0) return;
    const asked = [...this.#live];
    const alive = await renewOwners(
      this.#pool,
      asked.map((owner) => owner.id),
      this.#leaseMs,
    );
    for (const owner of asked) {
      if (alive.has(owner.id)) continue;
      this.#logger.warn({ owner: owner.id }, 'this gateway was taken for dead; its held money was given back');
      this.#live.delete(owner);
      this.retire(owner);
    }
  }

  /** Ends all names whose calls are settled; the rest is left to the lease. */
  async close(): Promise<void> {
    const owner = await this.#current?.catch(() => undefined);
    if (owner !== undefined) this.retire(owner);
    for (const retired of this.#live) await this.#release(retired);
  }

  #releaseIfDone(owner: Owner): void {
    if (!owner.isRetired || owner.openCalls > 0 || !this.#live.has(owner)) return;
    void this.#release(owner);
  }

  async #release(owner: Owner): Promise<void> {
    if (owner.openCalls > 0) return;
    this.#live.delete(owner);
    try {
      await withTransaction(this.#pool, (tx) => releaseOwner(tx, owner.id));
    } catch (error) {
      this.#logger.warn({ err: error, owner: owner.id }, 'held money is given back when the lease runs out');
    }
  }
}
