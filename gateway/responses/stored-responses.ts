import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Pool } from '../../db/pool.ts';
import type { GatewayResponse } from '../../db/queries/gateway-responses.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Authenticator, Caller } from '../auth.ts';
import { answerWith } from '../calls/answer-with.ts';
import type { ModelRequest } from '../calls/model-request.ts';
import { UpstreamCall } from '../calls/run-call.ts';
import type { GatewayTimeouts } from '../config.ts';
import type { Exchange } from '../endpoints.ts';
import type { PriceBook } from '../prices/price-book.ts';
import type { Provider, StoredRequest } from '../providers/port.ts';
import type { readRequestFacts } from '../routing/request.ts';
import { BackgroundBilling } from './background-billing.ts';
import { rememberIds } from './remember.ts';
import { ResponseBook } from './response-book.ts';
import { CollectedAnswer, storedCall } from './stored-call.ts';

interface StoredResponsesDeps {
  pool: Pool;
  logger: Logger;
  authenticator: Authenticator;
  prices: PriceBook;
  timeouts: GatewayTimeouts;
  /** Who made an answer; undefined when it is not configured any more. */
  providerOf: (row: GatewayResponse) => Provider | undefined;
}

type Facts = Pick<ReturnType<typeof readRequestFacts>, 'isStored' | 'isBackground' | 'previousResponseId'>;

/** Query parameters that are part of the protocol. */
const PARAMETERS = new Set([
  'after',
  'include',
  'include[]',
  'include_obfuscation',
  'limit',
  'order',
  'starting_after',
  'stream',
]);

/** Answers of the Responses protocol that stay at their provider: whose they are, how to get at them, what they cost. */
export class StoredResponses {
  readonly #deps: StoredResponsesDeps;
  readonly #book: ResponseBook;
  readonly #billing: BackgroundBilling;

  constructor(deps: StoredResponsesDeps) {
    this.#deps = deps;
    this.#billing = new BackgroundBilling(deps);
    this.#book = new ResponseBook({
      pool: deps.pool,
      logger: deps.logger,
      patienceMs: deps.timeouts.totalMs,
      firstPollMs: BackgroundBilling.firstPollMs,
    });
  }

  /** A call of the protocol, made so that its answer is found again; refuses one that goes on from somebody else's. */
  async prepare(planned: ModelRequest, facts: Facts, isKeyed: boolean): Promise<ModelRequest> {
    const { caller } = planned;
    let request = planned;
    if (facts.previousResponseId !== undefined) {
      const previous = await this.#book.find(caller, facts.previousResponseId, 'previous_response_id');
      // Nobody else has what it goes on from.
      request = { ...planned, provider: planned.provider.only?.(previous.deployment) ?? planned.provider };
    }
    if (facts.isBackground && isKeyed) {
      throw new LonghaulError('invalid_request', 'a background response takes no Idempotency-Key', {
        field: 'background',
      });
    }
    if (!facts.isStored && !facts.isBackground) return request;
    let taken: GatewayResponse | undefined;
    const provider = rememberIds(request.provider, {
      waits: facts.isBackground,
      onId: async (responseId, served) => {
        const row: GatewayResponse = {
          responseId,
          attribution: caller.attribution,
          virtualKeyId: caller.virtualKey?.id ?? null,
          provider: served?.provider ?? request.provider.name,
          deployment: served?.deployment ?? request.modelDeployment,
          model: served?.model ?? request.model,
          requestedModel: request.requestedModel,
          state: facts.isBackground ? 'open' : 'settled',
        };
        await this.#book.remember(row);
        taken = row;
      },
    });
    if (!facts.isBackground) return { ...request, provider };
    const ended = (): void => {
      if (taken !== undefined) this.#billing.look(taken);
    };
    return { ...request, provider, background: { isTaken: () => taken !== undefined, ended } };
  }

  /** Does what the caller wants with a stored answer, at the provider that has it. */
  async serve(exchange: Exchange, caller: Caller, action: StoredRequest['action']): Promise<void> {
    const row = await this.#book.find(caller, exchange.id);
    const provider = this.#deps.providerOf(row);
    if (provider?.stored === undefined) {
      throw new LonghaulError('not_found', 'the provider of this response is not configured any more');
    }
    // What it cost would never be known.
    if (action === 'delete' && row.state === 'open' && !(await this.#billing.settle(row))) {
      throw new LonghaulError('invalid_request', 'a running response cannot be deleted: cancel it first');
    }
    const stored: StoredRequest = {
      action,
      responseId: row.responseId,
      headers: { accept: exchange.req.headers.accept ?? '*/*' },
      search: searchOf(exchange.search),
    };
    const isOpen = row.state === 'open' && (action === 'retrieve' || action === 'cancel');
    const collected = isOpen ? new CollectedAnswer() : undefined;
    const giveBack = this.#deps.authenticator.takeSlot(caller);
    const { outcome, end } = await answerWith(
      { res: exchange.res, requestId: exchange.requestId, protocol: 'responses' },
      (taker) =>
        new UpstreamCall({
          ...storedCall(provider, stored, collected),
          timeouts: this.#deps.timeouts,
          taker,
        }),
    );
    giveBack();
    if (collected !== undefined) await this.#billing.settleSeen(row, collected);
    if (action === 'delete' && outcome.failure === undefined) await this.#book.forget(row);
    end();
  }

  async close(): Promise<void> {
    await this.#billing.close();
    await this.#book.drain();
  }
}

function searchOf(search: string): string {
  if (search === '') return '';
  const kept = new URLSearchParams();
  for (const [name, value] of new URLSearchParams(search)) if (PARAMETERS.has(name)) kept.append(name, value);
  return kept.size === 0 ? '' : `?${kept.toString()}`;
}
