import { newId } from '../../contracts/ids.ts';
import { isOutage, type Pool } from '../../db/pool.ts';
import { recordLedgerEntries, type LedgerEntry } from '../../db/queries/ledger.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Caller } from '../auth.ts';
import type { PriceBook } from '../prices/price-book.ts';
import type { Protocol } from '../protocol.ts';
import type { CallOutcome } from './run-call.ts';

/** A native model step: the place in the world its ledger row has. */
export interface StepPlace {
  sessionId: string;
  turn: number;
  step: number;
  callKey: string;
}

export interface CallFacts {
  caller: Caller;
  protocol: Protocol;
  provider: string;
  model: string;
  requestedModel: string;
  modelDeployment: string | null;
  place: StepPlace | undefined;
}

const RETRY_MS = 500;

/** The ledger row of a call that has ended. */
export function ledgerEntry(prices: PriceBook, facts: CallFacts, outcome: CallOutcome): LedgerEntry {
  const id = newId('ledger');
  const served = outcome.served ?? { deployment: facts.modelDeployment, provider: facts.provider, model: facts.model };
  const { attribution } = facts.caller;
  return {
    id,
    callKey: facts.place?.callKey ?? id,
    attribution,
    turn: facts.place?.turn ?? null,
    step: facts.place?.step ?? null,
    virtualKeyId: facts.caller.virtualKey?.id ?? null,
    requestedModel: facts.requestedModel,
    modelDeployment: served.deployment,
    protocol: facts.protocol,
    provider: served.provider,
    model: served.model,
    usage: outcome.usage,
    costMicros: prices.costMicros({ ...served, teamId: attribution.teamId }, outcome.usage),
    usageBasis: outcome.usageBasis,
    ttftMs: outcome.ttftMs,
    latencyMs: outcome.latencyMs,
    httpStatus: outcome.httpStatus,
    error: outcome.failure?.error.code ?? null,
  };
}

/** Runs database work again while Postgres is away, at most until `deadlineMs`; other errors are thrown at once. */
export async function throughOutages<T>(deadlineMs: number, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!isOutage(error) || Date.now() + RETRY_MS > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** Writes ledger rows of calls that nobody waits for, and knows which are still to be written. */
export class LedgerWriter {
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #pending = new Set<Promise<void>>();
  readonly #patienceMs: number;

  constructor(pool: Pool, logger: Logger, patienceMs: number) {
    this.#pool = pool;
    this.#logger = logger;
    this.#patienceMs = patienceMs;
  }

  write(entry: LedgerEntry): void {
    const done = throughOutages(Date.now() + this.#patienceMs, () => recordLedgerEntries(this.#pool, [entry])).then(
      () => undefined,
      (error: unknown) => {
        this.#logger.error({ err: error, ledger: entry }, 'ledger row lost: the database stayed away');
      },
    );
    this.#pending.add(done);
    void done.finally(() => this.#pending.delete(done));
  }

  /** Resolves when every row handed over so far is written. */
  async drain(): Promise<void> {
    await Promise.all(this.#pending);
  }
}
