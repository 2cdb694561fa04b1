import { randomBytes } from 'node:crypto';
import { newId } from '../../contracts/ids.ts';
import { withTransaction, type Pool } from '../../db/pool.ts';
import type { CachedAnswer } from '../../db/queries/cached-answers.ts';
import { recordLedgerEntries, type LedgerEntry } from '../../db/queries/ledger.ts';
import { claimModelCall, completeModelCall, releaseModelCall } from '../../db/queries/model-calls.ts';
import type { CallKey } from '../calls/idempotency-key.ts';
import type { CallJournal } from '../calls/call-journal.ts';
import type { ModelRequest } from '../calls/model-request.ts';
import { digestOf as requestDigest } from '../calls/recorded.ts';
import { withoutUsage } from '../calls/whole-events.ts';
import { REQUEST_ID_HEADER } from '../protocol.ts';
import type { CallTelemetry } from '../trace.ts';
import { NO_USAGE } from '../usage/normalise.ts';

interface ReplayerDeps {
  pool: Pool;
  journal: CallJournal;
  telemetry: CallTelemetry;
  leaseMs: number;
}

/** Gives answers again. Each has its ledger row, which says that it cost nothing and why. */
export class Replayer {
  readonly #deps: ReplayerDeps;
  readonly #owner = `gw_${randomBytes(12).toString('hex')}`;

  constructor(deps: ReplayerDeps) {
    this.#deps = deps;
  }

  /**
   * Answers the request. Under an idempotency key the answer is recorded first, as one of a provider would be; false when
   * the key has an answer of its own already, or is being answered: nothing was sent then.
   */
  async replay(request: ModelRequest, callKey: CallKey | undefined, kept: CachedAnswer): Promise<boolean> {
    // What is kept has the usage the gateway asks for; one caller wanted it, another did not.
    const answer = request.upstream.hidesUsage === true ? { ...kept, body: withoutUsage(kept.body) } : kept;
    const isPriced = request.upstream.operation === 'generate';
    if (callKey !== undefined && isPriced) {
      if (!(await this.#record(request, callKey, answer))) return false;
    } else if (isPriced) this.#given(request, answer);
    const { res, requestId, isStream } = request;
    if (res.destroyed) return true;
    const length = isStream ? {} : { 'content-length': answer.body.length };
    res.writeHead(200, { ...answer.headers, ...length, [REQUEST_ID_HEADER]: requestId });
    res.end(answer.body);
    return true;
  }

  #given(request: ModelRequest, answer: CachedAnswer): void {
    const entry = hitEntry(request, undefined, answer);
    this.#deps.journal.record(entry);
    this.#deps.telemetry.ended(request, entry);
  }

  async #record(request: ModelRequest, callKey: CallKey, answer: CachedAnswer): Promise<boolean> {
    const { pool, leaseMs } = this.#deps;
    const claim = await claimModelCall(pool, {
      key: callKey.stored,
      sessionId: request.caller.attribution.sessionId,
      requestDigest: requestDigest(request, callKey),
      owner: this.#owner,
      leaseMs,
    });
    if (claim.state !== 'owned') return false;
    try {
      const entry = hitEntry(request, callKey, answer);
      const isRecorded = await withTransaction(pool, async (tx) => {
        const recorded = { status: 200, headers: answer.headers, body: answer.body };
        if (!(await completeModelCall(tx, callKey.stored, this.#owner, recorded))) return false;
        await recordLedgerEntries(tx, [entry]);
        return true;
      });
      if (isRecorded) this.#deps.telemetry.ended(request, entry);
      return isRecorded;
    } catch (error) {
      await releaseModelCall(pool, callKey.stored, this.#owner).catch(() => undefined);
      throw error;
    }
  }
}

function hitEntry(request: ModelRequest, callKey: CallKey | undefined, answer: CachedAnswer): LedgerEntry {
  const id = newId('ledger');
  const place = callKey?.place;
  return {
    id,
    callKey: place?.callKey ?? id,
    attribution: request.caller.attribution,
    turn: place?.turn ?? request.turnCall?.turn ?? null,
    step: place?.step ?? request.turnCall?.call ?? null,
    virtualKeyId: request.caller.virtualKey?.id ?? null,
    protocol: request.protocol,
    provider: answer.provider,
    model: answer.model,
    requestedModel: request.requestedModel,
    modelDeployment: answer.deployment,
    usage: { ...NO_USAGE },
    costMicros: 0,
    usageBasis: 'none',
    cache: 'hit',
    ttftMs: null,
    latencyMs: 0,
    httpStatus: 200,
    error: null,
  };
}
