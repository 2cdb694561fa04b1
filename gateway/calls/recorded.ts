import { createHash, randomBytes } from 'node:crypto';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import { isOutage, withTransaction, type Pool } from '../../db/pool.ts';
import {
  CANCELLED_DIGEST,
  cancelModelCall,
  claimModelCall,
  completeModelCall,
  findModelCall,
  releaseModelCall,
  renewModelCalls,
  type Claim,
  type RecordedAnswer,
} from '../../db/queries/model-calls.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Authenticator } from '../auth.ts';
import type { GatewayTimeouts } from '../config.ts';
import type { GatewayMetrics } from '../metrics.ts';
import { errorBody, errorHeaders, REQUEST_ID_HEADER } from '../protocol.ts';
import type { CallTelemetry } from '../trace.ts';
import { Broadcast } from './broadcast.ts';
import { throughOutages } from './call-journal.ts';
import type { CallKey } from './idempotency-key.ts';
import { MeteredCall, type Meter } from './metered-call.ts';
import { ATTACHED_HEADER, REPLAYED_HEADER, type ModelRequest } from './model-request.ts';
import { UpstreamCall, type CallOutcome } from './run-call.ts';

interface RecordedDeps {
  pool: Pool;
  authenticator: Authenticator;
  meter: Meter;
  logger: Logger;
  metrics: GatewayMetrics;
  telemetry: CallTelemetry;
  timeouts: GatewayTimeouts;
  leaseMs: number;
}

interface RunningEntry {
  digest: string;
  broadcast: Broadcast;
  call: UpstreamCall;
  done: Promise<void>;
}

/** A call that has ended and is to be recorded. */
interface Settling {
  request: ModelRequest;
  key: CallKey;
  broadcast: Broadcast;
  metered: MeteredCall;
}

const POLL_MIN_MS = 25;
const POLL_MAX_MS = 500;

/**
 * Calls with an idempotency key. The gateway owns them: they run to their end when the caller dies, are recorded
 * together with their ledger row, and every later request under the key gets the recorded bytes.
 */
export class RecordedCalls {
  readonly #deps: RecordedDeps;
  readonly #owner = `gw_${randomBytes(12).toString('hex')}`;
  readonly #running = new Map<string, RunningEntry>();
  readonly #renewal: NodeJS.Timeout;

  constructor(deps: RecordedDeps) {
    this.#deps = deps;
    this.#renewal = setInterval(() => void this.#renew(), Math.max(100, Math.floor(deps.leaseMs / 3)));
    this.#renewal.unref();
  }

  /** Answers from the record, from the running call, or by making the call. */
  async serve(request: ModelRequest, key: CallKey): Promise<void> {
    const digest = digestOf(request, key);
    const deadlineMs = Date.now() + this.#deps.timeouts.totalMs;
    for (let pollMs = POLL_MIN_MS; ; pollMs = Math.min(pollMs * 2, POLL_MAX_MS)) {
      if (request.res.destroyed) return;
      const running = this.#running.get(key.stored);
      if (running !== undefined) {
        requireSameRequest(running.digest, digest);
        this.#deps.metrics.replayed();
        this.#follow(request, running.broadcast, { [ATTACHED_HEADER]: 'true' });
        return;
      }
      const claim = await this.#claim(request, key, digest);
      switch (claim.state) {
        case 'owned':
          await this.#start(request, key, digest);
          return;
        case 'complete':
          if (claim.requestDigest !== CANCELLED_DIGEST) requireSameRequest(claim.requestDigest, digest);
          this.#deps.metrics.replayed();
          replay(request, claim.answer);
          return;
        case 'in_flight':
          requireSameRequest(claim.requestDigest, digest);
          break;
        default:
          assertNever(claim);
      }
      if (Date.now() > deadlineMs) {
        throw new LonghaulError('idempotency_in_progress', 'the first call with this Idempotency-Key still runs', {
          retryAfterMs: 1_000,
        });
      }
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }

  /** Makes `cancelled` the answer of a step's key for good. Resolves when what was billed so far is recorded. */
  async cancel(request: { key: string; sessionId: string; requestId: string }): Promise<'cancelled' | 'complete'> {
    const error = new LonghaulError('cancelled', 'the model call was cancelled');
    const answer: RecordedAnswer = {
      status: error.status,
      headers: errorHeaders(error, request.requestId),
      body: Buffer.from(JSON.stringify(errorBody('messages', { error }, request.requestId))),
    };
    const place = { key: request.key, sessionId: request.sessionId, owner: this.#owner };
    const wasOpen = await cancelModelCall(this.#deps.pool, place, answer);
    const running = this.#running.get(request.key);
    if (wasOpen) running?.call.abort(error);
    await running?.done;
    return wasOpen ? 'cancelled' : 'complete';
  }

  /** Lets running calls end for `graceMs`, then ends them so that others can make them again. */
  async close(graceMs: number): Promise<void> {
    const ended = Promise.all(Array.from(this.#running.values(), (entry) => entry.done));
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise((resolve) => {
      timer = setTimeout(resolve, graceMs);
    });
    await Promise.race([ended, patience]);
    clearTimeout(timer);
    for (const { call } of this.#running.values()) {
      call.abort(new LonghaulError('provider_unavailable', 'the gateway shuts down'));
    }
    await Promise.all(Array.from(this.#running.values(), (entry) => entry.done));
    clearInterval(this.#renewal);
  }

  async #claim(request: ModelRequest, key: CallKey, requestDigest: string): Promise<Claim> {
    try {
      return await claimModelCall(this.#deps.pool, {
        key: key.stored,
        sessionId: request.caller.attribution.sessionId,
        requestDigest,
        owner: this.#owner,
        leaseMs: this.#deps.leaseMs,
      });
    } catch (error) {
      if (!isOutage(error)) throw error;
      throw new LonghaulError('database_unavailable', 'the call cannot be recorded', { cause: error });
    }
  }

  /** Makes the call this process has claimed; gives the claim back when it may not be made. */
  async #start(request: ModelRequest, key: CallKey, digest: string): Promise<void> {
    let giveBack: (() => void) | undefined;
    let metered: MeteredCall | undefined;
    const claimedAtMs = Date.now();
    try {
      giveBack = this.#deps.authenticator.takeSlot(request.caller);
      metered = await MeteredCall.reserve(this.#deps.meter, request, key.place);
      // Looking for money may have taken as long as a lease: nobody is asked twice.
      if (Date.now() - claimedAtMs > this.#deps.leaseMs / 4) await this.#keepClaim(key);
    } catch (error) {
      metered?.cancel();
      giveBack?.();
      await releaseModelCall(this.#deps.pool, key.stored, this.#owner);
      throw error;
    }
    const broadcast = new Broadcast();
    const call = this.#call(request, broadcast, metered);
    metered.started(call);
    const done = call.outcome
      .then((outcome) => this.#settle({ request, key, broadcast, metered }, outcome))
      .catch((error: unknown) => {
        this.#deps.logger.error({ err: error, requestId: request.requestId }, 'a model call could not be recorded');
        broadcast.fail({ error: new LonghaulError('internal', 'the call could not be recorded') });
      })
      .finally(() => {
        giveBack?.();
        this.#running.delete(key.stored);
      });
    this.#running.set(key.stored, { digest, broadcast, call, done });
    this.#follow(request, broadcast, {});
  }

  async #keepClaim(key: CallKey): Promise<void> {
    const mine = await renewModelCalls(this.#deps.pool, this.#owner, [key.stored], this.#deps.leaseMs);
    if (!mine.has(key.stored)) throw await this.#whyLost(key.stored);
  }

  #call(request: ModelRequest, broadcast: Broadcast, metered: MeteredCall): UpstreamCall {
    this.#deps.metrics.started();
    let isStreamed = false;
    const call: UpstreamCall = new UpstreamCall({
      provider: request.provider,
      request: request.upstream,
      isStream: request.isStream,
      timeouts: this.#deps.timeouts,
      budget: metered.budget,
      taker: {
        onHead: (status, headers, isStream) => {
          isStreamed = isStream;
          broadcast.setHead(status, headers, isStream);
        },
        wantsLast: true,
        onData: (chunk, isLast) => {
          broadcast.push(chunk);
          if (broadcast.sizeBytes > LIMITS.recordedCallBytes) {
            call.abort(new LonghaulError('provider_rejected', 'the answer is larger than an answer may be'));
          } else if (isStreamed && !isLast) broadcast.release();
          return true;
        },
      },
    });
    return call;
  }

  async #settle({ request, key, broadcast, metered }: Settling, outcome: CallOutcome): Promise<void> {
    const served = outcome.served ?? { model: request.model, provider: request.provider.name };
    this.#deps.metrics.ended(served.model, served.provider, outcome);
    request.onUsage?.(outcome.usage);
    const entry = metered.entryOf(outcome);
    const isAnswered = outcome.failure === undefined;
    const isRecorded = await metered.settleIn(outcome, (write) =>
      throughOutages(Date.now() + this.#deps.timeouts.totalMs, () =>
        withTransaction(this.#deps.pool, async (tx) => {
          const isMine = isAnswered && (await completeModelCall(tx, key.stored, this.#owner, broadcast.answer()));
          // The key's row is locked first, the pools' rows last: a renewal locks many keys and must not wait for pools.
          if (!isAnswered) await releaseModelCall(tx, key.stored, this.#owner);
          await write(tx);
          return isMine;
        }),
      ),
    );
    // An answer that came too late is not the key's answer, so it is not shown under the key's name.
    this.#deps.telemetry.ended(request, isAnswered && !isRecorded ? { ...entry, error: 'superseded' } : entry);
    if (outcome.failure !== undefined) broadcast.fail(outcome.failure, outcome.failureWasStreamed);
    else if (isRecorded) broadcast.finish();
    else broadcast.fail({ error: await this.#whyLost(key.stored) });
  }

  async #renew(): Promise<void> {
    const asked = [...this.#running];
    if (asked.length === 0) return;
    const keys = asked.map(([key]) => key);
    try {
      const mine = await renewModelCalls(this.#deps.pool, this.#owner, keys, this.#deps.leaseMs);
      for (const [key, running] of asked) {
        // Ended meanwhile, its key may have a new call already: that one was not asked about.
        const isStillRunning = this.#running.get(key) === running;
        if (!mine.has(key) && isStillRunning) running.call.abort(await this.#whyLost(key));
      }
    } catch (error) {
      this.#deps.logger.warn({ err: error, calls: keys.length }, 'leases of model calls were not renewed');
    }
  }

  async #whyLost(key: string): Promise<LonghaulError> {
    const found = await findModelCall(this.#deps.pool, key);
    return found?.state === 'complete' && found.requestDigest === CANCELLED_DIGEST
      ? new LonghaulError('cancelled', 'the model call was cancelled')
      : new LonghaulError('idempotency_in_progress', 'another gateway has taken the call over', {
          retryAfterMs: 1_000,
        });
  }

  #follow(request: ModelRequest, broadcast: Broadcast, headers: Record<string, string>): void {
    const { res, protocol, requestId } = request;
    broadcast.follow({ res, protocol, requestId, headers: { ...headers, [REQUEST_ID_HEADER]: requestId } });
  }
}

/**
 * A step's place says what is asked: another build of the worker may word the same step differently in the middle of a
 * rolling upgrade, and must get the answer that was paid. Other keys are the caller's own and bound to the body.
 */
export function digestOf({ protocol, body }: ModelRequest, key: CallKey): string {
  if (key.place !== undefined) return `step ${protocol}`;
  return createHash('sha256').update(`${protocol}\n`).update(body).digest('hex');
}

function requireSameRequest(recorded: string, digest: string): void {
  if (recorded === digest) return;
  throw new LonghaulError('idempotency_conflict', 'the Idempotency-Key was used for a different request');
}

function replay({ res, requestId }: ModelRequest, answer: RecordedAnswer): void {
  if (res.destroyed) return;
  res.writeHead(answer.status, {
    ...answer.headers,
    [REPLAYED_HEADER]: 'true',
    [REQUEST_ID_HEADER]: requestId,
    'content-length': answer.body.length,
  });
  res.end(answer.body);
}
