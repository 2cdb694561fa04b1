import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Attempt, AttemptFailure } from '../../contracts/routing.ts';
import type { AnswerSink, ProviderRequest, RunningCall } from '../providers/port.ts';
import type { Deployment } from './deployment.ts';
import { failureOf, failureOfFirstEvent, retryAfterMsOf } from './failures.ts';

/** A deployment that is to be asked for a certain model. */
export interface Candidate {
  deployment: Deployment;
  model: string;
}

/** How an attempt failed before its first byte, and how to make that the answer of the whole call. */
export interface AttemptEnd {
  failure: AttemptFailure;
  retryAfterMs: number | undefined;
  deliver: () => void;
}

interface AttemptOptions {
  candidate: Candidate;
  request: ProviderRequest;
  sink: AnswerSink;
  firstByteMs: number;
  /** An error event at the very start of a stream is a failed attempt, not an answer. */
  looksAtFirstEvent: boolean;
  /** The attempt is added to it when it answers or fails. */
  attempts: Attempt[];
  limits: { allowedFails: number; cooldownMs: number };
  onFailed: (end: AttemptEnd) => void;
}

const MAX_ERROR_BODY_BYTES = 1024 * 1024;

/**
 * One try of one deployment. Nothing reaches the caller before the first byte of a good answer: until then the
 * attempt can fail unseen. From then on it only passes on.
 */
export class AttemptCall implements AnswerSink, RunningCall {
  readonly #options: AttemptOptions;
  readonly #startedMs = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #running: RunningCall | undefined;
  #head: { status: number; headers: Record<string, string> } | undefined;
  #errorBody: Buffer[] = [];
  #errorBytes = 0;
  #record: Attempt | undefined;
  #state: 'waiting' | 'answering' | 'ended' = 'waiting';

  constructor(options: AttemptOptions) {
    this.#options = options;
  }

  start(): void {
    const { candidate, request, firstByteMs } = this.#options;
    candidate.deployment.health.inFlight += 1;
    this.#timer = setTimeout(() => {
      const error = new LonghaulError('provider_timeout', `the first byte did not come within ${firstByteMs} ms`);
      this.#failed('timeout', undefined, () => this.#options.sink.onFailure(error, true));
    }, firstByteMs);
    this.#running = candidate.deployment.provider().start(request, this);
    if (this.#isEnded()) this.#running.abort();
  }

  resume(): void {
    this.#running?.resume();
  }

  abort(): void {
    if (this.#state === 'ended') return;
    if (this.#state === 'waiting') this.#note('cancelled');
    this.#leave();
    this.#running?.abort();
  }

  onHead(status: number, headers: Record<string, string>): void {
    if (this.#state === 'waiting') this.#head = { status, headers };
  }

  onData(chunk: Buffer): boolean {
    if (this.#state === 'answering') return this.#options.sink.onData(chunk);
    if (this.#state === 'ended' || this.#head === undefined) return true;
    if (this.#head.status >= 400) {
      // One piece more than may be kept, so that the whole call sees that it is too large.
      if (this.#errorBytes <= MAX_ERROR_BODY_BYTES) this.#errorBody.push(chunk);
      this.#errorBytes += chunk.length;
      return true;
    }
    const failure = this.#options.looksAtFirstEvent ? failureOfFirstEvent(chunk) : undefined;
    if (failure !== undefined) {
      this.#failed(failure, undefined, () => this.#deliverWhole([chunk]));
      return true;
    }
    this.#answer();
    return this.#options.sink.onData(chunk);
  }

  onEnd(): void {
    if (this.#state === 'ended') return;
    if (this.#state === 'waiting' && this.#head !== undefined && this.#head.status >= 400) {
      const body = Buffer.concat(this.#errorBody);
      const retryAfterMs = retryAfterMsOf(this.#head.headers);
      this.#failed(failureOf(this.#head.status, body), retryAfterMs, () => this.#deliverWhole([body]));
      return;
    }
    if (this.#state === 'waiting') this.#answer();
    this.#leave();
    this.#options.sink.onEnd();
  }

  onFailure(error: Error, billed: boolean): void {
    if (this.#state === 'ended') return;
    const failure = failureOfError(error);
    if (this.#state === 'waiting') {
      this.#failed(failure, undefined, () => this.#options.sink.onFailure(error, billed));
      return;
    }
    if (this.#record !== undefined) this.#record.error = failure;
    const { candidate, limits } = this.#options;
    candidate.deployment.health.failed(failure, limits, Date.now(), undefined);
    this.#leave();
    this.#options.sink.onFailure(error, billed);
  }

  /** The first byte is there: this attempt is the answer. */
  #answer(): void {
    if (this.#head === undefined) return;
    const { deployment, model } = this.#options.candidate;
    clearTimeout(this.#timer);
    this.#state = 'answering';
    this.#note(null);
    deployment.health.succeeded(performance.now() - this.#startedMs, Date.now());
    this.#options.sink.onHead(this.#head.status, this.#head.headers, servedBy(deployment, model));
  }

  #failed(failure: AttemptFailure, retryAfterMs: number | undefined, deliver: () => void): void {
    if (this.#state !== 'waiting') return;
    const { candidate, limits, onFailed } = this.#options;
    this.#note(failure);
    candidate.deployment.health.failed(failure, limits, Date.now(), retryAfterMs);
    this.#leave();
    this.#running?.abort();
    onFailed({ failure, retryAfterMs, deliver });
  }

  #deliverWhole(pieces: Buffer[]): void {
    const { sink, candidate } = this.#options;
    if (this.#head === undefined) return;
    sink.onHead(this.#head.status, this.#head.headers, servedBy(candidate.deployment, candidate.model));
    for (const piece of pieces) sink.onData(piece);
    sink.onEnd();
  }

  #note(error: Attempt['error']): void {
    const { candidate, attempts } = this.#options;
    this.#record = {
      deployment: candidate.deployment.id,
      provider: candidate.deployment.providerName,
      model: candidate.model,
      status: this.#head?.status ?? null,
      error,
      ms: Math.round(performance.now() - this.#startedMs),
    };
    attempts.push(this.#record);
  }

  #leave(): void {
    clearTimeout(this.#timer);
    this.#state = 'ended';
    this.#options.candidate.deployment.health.inFlight -= 1;
  }

  #isEnded(): boolean {
    return this.#state === 'ended';
  }
}

function servedBy(
  deployment: Deployment,
  model: string,
): { deployment: string | null; provider: string; model: string } {
  return { deployment: deployment.id, provider: deployment.providerName, model };
}

function failureOfError(error: Error): AttemptFailure {
  if (!(error instanceof LonghaulError)) return 'unavailable';
  switch (error.code) {
    case 'provider_timeout':
      return 'timeout';
    case 'provider_rate_limited':
      return 'rate_limited';
    case 'provider_auth':
      return 'auth';
    case 'provider_rejected':
      return 'rejected';
    default:
      return 'unavailable';
  }
}
