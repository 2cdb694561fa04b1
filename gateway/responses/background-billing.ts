import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction, type Pool } from '../../db/pool.ts';
import { claimOpenResponses, settleGatewayResponse, type GatewayResponse } from '../../db/queries/gateway-responses.ts';
import { recordLedgerEntries, type LedgerEntry } from '../../db/queries/ledger.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { chargePools } from '../budget/charge.ts';
import { UpstreamCall } from '../calls/run-call.ts';
import type { GatewayTimeouts } from '../config.ts';
import type { PriceBook } from '../prices/price-book.ts';
import type { Provider } from '../providers/port.ts';
import { NO_USAGE, normaliseUsage } from '../usage/normalise.ts';
import { CollectedAnswer, storedCall } from './stored-call.ts';

interface BillingDeps {
  pool: Pool;
  logger: Logger;
  prices: PriceBook;
  timeouts: GatewayTimeouts;
  providerOf: (row: GatewayResponse) => Provider | undefined;
}

const FIRST_POLL_MS = 2_000;
const LONGEST_PAUSE_MS = 5 * 60_000;
const SWEEP_MS = 1_000;
const BATCH = 20;
const ENDED = new Set(['completed', 'failed', 'cancelled', 'incomplete']);

/**
 * Writes what background answers cost, once, when they are first seen to have ended: by a caller who asks for them, or
 * by a look now and then, because nobody has to ask.
 */
export class BackgroundBilling {
  static readonly firstPollMs = FIRST_POLL_MS;
  readonly #deps: BillingDeps;
  readonly #sweep: NodeJS.Timeout;
  readonly #looks = new Set<Promise<unknown>>();
  readonly #calls = new Set<UpstreamCall>();

  constructor(deps: BillingDeps) {
    this.#deps = deps;
    this.#sweep = setInterval(() => {
      if (this.#looks.size === 0) this.#run(this.#lookAtOpen());
    }, SWEEP_MS);
    this.#sweep.unref();
  }

  /** Looks at an answer soon, without anybody waiting. */
  look(row: GatewayResponse): void {
    this.#run(this.settle(row));
  }

  /** Asks the provider; true when the answer has ended and its cost is in the ledger. */
  async settle(row: GatewayResponse): Promise<boolean> {
    const provider = this.#deps.providerOf(row);
    if (provider?.stored === undefined) return false;
    const collected = new CollectedAnswer();
    const stored = { action: 'retrieve', responseId: row.responseId, headers: {}, search: '' } as const;
    const taker = { onHead: () => undefined, onData: () => true };
    const call = new UpstreamCall({
      ...storedCall(provider, stored, collected),
      timeouts: this.#deps.timeouts,
      taker,
    });
    this.#calls.add(call);
    await call.outcome;
    this.#calls.delete(call);
    return this.settleSeen(row, collected);
  }

  /** The same, with an answer that has just gone by. */
  async settleSeen(row: GatewayResponse, collected: CollectedAnswer): Promise<boolean> {
    if (collected.status === 404) return this.#write(row, undefined, 'not_found');
    const response = collected.status === 200 ? collected.response() : undefined;
    const status = response?.['status'];
    if (typeof status !== 'string' || !ENDED.has(status)) return false;
    const error = status === 'failed' ? 'provider_unavailable' : status === 'cancelled' ? 'cancelled' : null;
    return this.#write(row, response, error);
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep);
    for (const call of this.#calls) call.abort(new LonghaulError('provider_unavailable', 'the gateway shuts down'));
    await Promise.all(this.#looks);
  }

  async #lookAtOpen(): Promise<void> {
    const pause = { firstMs: FIRST_POLL_MS, longestMs: LONGEST_PAUSE_MS };
    const open = await claimOpenResponses(this.#deps.pool, BATCH, pause);
    await Promise.all(
      open.map(async (row) => {
        if ((await this.settle(row)) || row.ageMs < LIMITS.backgroundResponseMs) return;
        this.#deps.logger.error({ responseId: row.responseId }, 'the end of a background response was never seen');
        await this.#write(row, undefined, 'provider_timeout');
      }),
    );
  }

  #run(work: Promise<unknown>): void {
    const done = work.catch((error: unknown) => {
      this.#deps.logger.warn({ err: error }, 'background responses were not looked at');
    });
    this.#looks.add(done);
    void done.finally(() => this.#looks.delete(done));
  }

  /** One transaction: who closes the answer writes its row. */
  async #write(row: GatewayResponse, response: Record<string, unknown> | undefined, error: string | null) {
    const entry = this.#entry(row, response, error);
    await withTransaction(this.#deps.pool, async (tx) => {
      if (!(await settleGatewayResponse(tx, row.attribution.teamId, row.responseId))) return;
      await recordLedgerEntries(tx, [entry]);
      await chargePools(tx, entry);
    });
    return true;
  }

  #entry(row: GatewayResponse, response: Record<string, unknown> | undefined, error: string | null): LedgerEntry {
    const reported = response?.['usage'] ?? null;
    const usage =
      reported === null ? { ...NO_USAGE } : normaliseUsage('responses', reported as Record<string, unknown>);
    const { attribution, deployment, provider, model } = row;
    const [from, to] = [response?.['created_at'], response?.['completed_at']];
    return {
      id: newId('ledger'),
      callKey: `response/${attribution.teamId}/${row.responseId}`,
      attribution,
      turn: null,
      step: null,
      virtualKeyId: row.virtualKeyId,
      protocol: 'responses',
      provider,
      model,
      requestedModel: row.requestedModel,
      modelDeployment: deployment,
      usage,
      costMicros: this.#deps.prices.costMicros({ provider, model, deployment, teamId: attribution.teamId }, usage),
      usageBasis: reported === null ? 'none' : 'reported',
      ttftMs: null,
      latencyMs: typeof from === 'number' && typeof to === 'number' ? Math.max(0, Math.round((to - from) * 1_000)) : 0,
      httpStatus: 200,
      error,
    };
  }
}
