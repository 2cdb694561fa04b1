import { newId } from '../../contracts/ids.ts';
import type { Usage } from '../../contracts/definitions.ts';
import type { Queryable } from '../../db/pool.ts';
import type { CallProgress } from '../../db/queries/call-intents.ts';
import type { LedgerEntry } from '../../db/queries/ledger.ts';
import type { CallBudget, Hold } from '../budget/hold.ts';
import { estimateInputTokens, type BudgetKeeper } from '../budget/keeper.ts';
import type { PriceBook } from '../prices/price-book.ts';
import { NO_USAGE } from '../usage/normalise.ts';
import type { CallJournal, OpenCall, SettledWindow, Settlement } from './call-journal.ts';
import { ledgerEntry, type StepPlace } from './ledger-entry.ts';
import type { ModelRequest } from './model-request.ts';
import type { CallOutcome, UpstreamCall } from './run-call.ts';

/** What metering needs of the gateway. */
export interface Meter {
  keeper: BudgetKeeper;
  journal: CallJournal;
  prices: PriceBook;
}

/** Error of the ledger row of a call whose gateway died. */
const GATEWAY_LOST = 'gateway_lost';

/** One call with its money and its rows: held before it starts, noted while it runs, settled when it has ended. */
export class MeteredCall {
  readonly #meter: Meter;
  readonly #request: ModelRequest;
  readonly #place: StepPlace | undefined;
  readonly #hold: Hold | undefined;
  readonly #open: OpenCall;
  #upstream: Pick<UpstreamCall, 'soFar'> | undefined;
  #notedOutput = -1;

  private constructor(meter: Meter, request: ModelRequest, place: StepPlace | undefined, hold: Hold | undefined) {
    this.#meter = meter;
    this.#request = request;
    this.#place = place;
    this.#hold = hold;
    const windows = hold?.windows.map(({ budgetId, windowKey }) => ({ budgetId, windowKey })) ?? [];
    this.#open = {
      id: newId('ledger'),
      intent: () => ({ entry: this.#draft(), windows }),
      progress: () => this.#progress(),
    };
  }

  /** Holds the money of a call; throws what refuses it. */
  static async reserve(meter: Meter, request: ModelRequest, place?: StepPlace): Promise<MeteredCall> {
    const hold = await meter.keeper.reserve({
      attribution: request.caller.attribution,
      provider: request.provider.name,
      model: request.model,
      targets: request.targets,
      isStream: request.isStream,
      inputBytes: request.upstream.body.length,
      maxOutputTokens: request.maxOutputTokens,
    });
    return new MeteredCall(meter, request, place, hold);
  }

  /** Undefined: no pool pays for the call. */
  get budget(): CallBudget | undefined {
    const hold = this.#hold;
    if (hold === undefined) return undefined;
    return {
      covers: (usage, model) => hold.covers(this.#withInput(usage), model),
      extend: () => hold.extend(),
    };
  }

  /** The provider is asked from here on: should this process die, the call is charged. */
  started(upstream: Pick<UpstreamCall, 'soFar'>): void {
    this.#upstream = upstream;
    this.#meter.journal.open(this.#open);
  }

  /** Nothing is to be paid here: what was held is free again. */
  cancel(): void {
    this.#meter.journal.settle(this.#settlement(undefined));
  }

  /** The call has ended: its row, which is given back, is written soon. */
  settle(outcome: CallOutcome): LedgerEntry {
    const entry = this.entryOf(outcome);
    this.#meter.journal.settle(this.#settlement(entry));
    return entry;
  }

  /**
   * The same in the transaction that `transact` runs, as often as it must. A call that failed and was not billed leaves
   * no row.
   */
  async settleIn<T>(
    outcome: CallOutcome,
    transact: (write: (tx: Queryable) => Promise<void>) => Promise<T>,
  ): Promise<T> {
    const isWorthARow = outcome.failure === undefined || outcome.usageBasis !== 'none';
    const { journal } = this.#meter;
    const settlement = this.#settlement(isWorthARow ? this.entryOf(outcome) : undefined);
    let windows: SettledWindow[] = [];
    try {
      await journal.prepare(settlement);
      const result = await transact(async (tx) => {
        windows = await journal.settleIn(tx, settlement);
      });
      journal.settled(settlement, windows);
      return result;
    } catch (error) {
      journal.failed(settlement);
      throw error;
    }
  }

  /** The ledger row of an outcome, also of one that gets none. */
  entryOf(outcome: CallOutcome): LedgerEntry {
    const facts = { ...this.#request, provider: this.#request.provider.name, place: this.#place };
    const usage = outcome.usageBasis === 'estimated' ? this.#withInput(outcome.usage) : outcome.usage;
    return ledgerEntry(this.#open.id, this.#meter.prices, facts, { ...outcome, usage });
  }

  #settlement(entry: LedgerEntry | undefined): Settlement {
    return { call: this.#open, entry, changes: this.#hold?.settle(entry?.costMicros ?? 0) ?? [] };
  }

  /** The row of a call that dies here: what is known of it, and of one that has said nothing, its input. */
  #draft(): LedgerEntry {
    const soFar = this.#upstream?.soFar();
    const usage = soFar?.usage ?? NO_USAGE;
    const entry = this.entryOf({
      usage,
      usageBasis: 'estimated',
      httpStatus: null,
      ttftMs: null,
      latencyMs: soFar?.latencyMs ?? 0,
      served: soFar?.served,
      attempts: [],
      failure: undefined,
      failureWasStreamed: false,
    });
    return { ...entry, error: GATEWAY_LOST };
  }

  /** Most protocols tell the input at the end only: until then it is estimated. */
  #withInput(usage: Usage): Usage {
    const known = usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
    return known > 0 ? usage : { ...usage, inputTokens: estimateInputTokens(this.#request.upstream.body.length) };
  }

  #progress(): CallProgress | undefined {
    const soFar = this.#upstream?.soFar();
    if (soFar?.usage === undefined || soFar.usage.outputTokens === this.#notedOutput) return undefined;
    this.#notedOutput = soFar.usage.outputTokens;
    const { id, usage, costMicros, latencyMs, model, provider } = this.#draft();
    return { id, usage, costMicros, latencyMs, model, provider };
  }
}
