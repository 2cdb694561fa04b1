import type { Usage } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Attempt } from '../../contracts/routing.ts';
import type { CallBudget } from '../budget/hold.ts';
import type { GatewayTimeouts } from '../config.ts';
import type { AnswerSink, Provider, ProviderRequest, RunningCall, Served } from '../providers/port.ts';
import { providerFailure } from '../providers/provider-errors.ts';
import type { ProtocolError } from '../protocol.ts';
import { NO_USAGE } from '../usage/normalise.ts';
import { createTap, type UsageTap } from '../usage/tap.ts';
import { BudgetGate } from './budget-gate.ts';
import { WholeEvents } from './whole-events.ts';

/** Who takes the answer while it streams. Heads are good ones only: failures are in the outcome. */
export interface AnswerTaker {
  onHead(status: number, headers: Record<string, string>, isStream: boolean): void;
  /** The taker must know which piece is the last one: pieces are read before they are given on. */
  wantsLast?: boolean;
  /** `isLast`: with this piece the answer is whole, said to who wants it. False asks for a pause. */
  onData(chunk: Buffer, isLast: boolean): boolean;
}

/** How a call ended and what it cost. */
export interface CallOutcome {
  usage: Usage;
  usageBasis: 'reported' | 'estimated' | 'none';
  httpStatus: number | null;
  ttftMs: number | null;
  latencyMs: number;
  /** Undefined: the provider that was asked answered itself, or nobody did. */
  served: Served | undefined;
  /** Every deployment that was asked, in order. */
  attempts: readonly Attempt[];
  /** Undefined: the whole answer was given. */
  failure: ProtocolError | undefined;
  /** True when the failure has been told in the stream by the provider itself. */
  failureWasStreamed: boolean;
}

interface CallOptions {
  provider: Provider;
  request: ProviderRequest;
  isStream: boolean;
  timeouts: GatewayTimeouts;
  taker: AnswerTaker;
  /** Money of the call; absent: nothing stops it. */
  budget?: CallBudget | undefined;
}

const MAX_ERROR_BODY_BYTES = 1024 * 1024;

/** One call to a provider, from the request to its outcome. Never rejects: a failure is an outcome. */
export class UpstreamCall implements AnswerSink {
  readonly outcome: Promise<CallOutcome>;
  readonly #options: CallOptions;
  readonly #startedMs = performance.now();
  readonly #totalTimer: NodeJS.Timeout;
  #waitTimer: NodeJS.Timeout;
  #running: RunningCall | undefined;
  #settle: (outcome: CallOutcome) => void = () => undefined;
  #isSettled = false;
  #status: number | null = null;
  #headers: Record<string, string> = {};
  #served: Served | undefined;
  #errorBody: Buffer[] | undefined;
  #errorBytes = 0;
  #tap: UsageTap | undefined;
  #gate: BudgetGate | undefined;
  #events: WholeEvents | undefined;
  #ttftMs: number | null = null;

  constructor(options: CallOptions) {
    this.#options = options;
    this.outcome = new Promise((resolve) => {
      this.#settle = resolve;
    });
    const { timeouts, isStream } = options;
    // An answer that does not stream has its first byte when all of it is made.
    this.#waitTimer = this.#failAfter(isStream ? timeouts.firstByteMs : timeouts.totalMs, 'the first byte');
    this.#totalTimer = this.#failAfter(timeouts.totalMs, 'the whole answer');
    try {
      this.#running = options.provider.start(options.request, this);
    } catch (error) {
      // Nobody was asked. What holds money for the call lives on the outcome.
      this.#fail({ error: error instanceof LonghaulError ? error : internal(error) }, false);
    }
    if (this.#isSettled) this.#running?.abort();
  }

  /** Ends the call now; what was billed so far is in the outcome. */
  abort(error: LonghaulError): void {
    this.#fail({ error }, true);
  }

  /** What is known of a call that runs: undefined usage while nothing has come. */
  soFar(): { usage: Usage | undefined; served: Served | undefined; latencyMs: number } {
    const latencyMs = Math.round(performance.now() - this.#startedMs);
    const usage = this.#ttftMs === null ? undefined : this.#tap?.usageSoFar;
    return { usage, served: this.#served, latencyMs };
  }

  /** The taker can take more. */
  resume(): void {
    if (this.#isSettled || this.#gate?.isHolding === true) return;
    this.#waitTimer.refresh();
    this.#running?.resume();
  }

  onHead(status: number, headers: Record<string, string>, served?: Served): void {
    if (this.#isSettled) return;
    this.#served = served;
    this.#status = status;
    this.#headers = headers;
    if (status >= 400) {
      this.#errorBody = [];
      return;
    }
    const isStream = /^text\/event-stream/i.test(headers['content-type'] ?? '');
    this.#tap = createTap(this.#options.request.protocol, isStream);
    if (isStream) {
      this.#events = new WholeEvents(this.#options.taker, this.#options.request.hidesUsage === true);
      this.#gate = this.#createGate(this.#tap);
    }
    this.#options.taker.onHead(status, headers, isStream);
  }

  onData(chunk: Buffer): boolean {
    if (this.#isSettled) return true;
    if (this.#ttftMs === null) {
      this.#ttftMs = Math.round(performance.now() - this.#startedMs);
      clearTimeout(this.#waitTimer);
      this.#waitTimer = this.#failAfter(this.#options.timeouts.idleMs, 'the next piece');
    } else this.#waitTimer.refresh();
    if (this.#errorBody !== undefined) {
      this.#errorBytes += chunk.length;
      if (this.#errorBytes <= MAX_ERROR_BODY_BYTES) this.#errorBody.push(chunk);
      return true;
    }
    if (this.#gate?.isHolding === true) {
      this.#tap?.push(chunk);
      this.#gate.hold(chunk);
      return false;
    }
    const hasRoom = this.#passAndRead(chunk);
    return (this.#gate?.check(this.#tap?.isComplete === true) ?? true) && hasRoom;
  }

  /** A caller who waits gets the piece before it is read for its usage. */
  #passAndRead(chunk: Buffer): boolean {
    if (this.#options.taker.wantsLast === true) {
      this.#tap?.push(chunk);
      return this.#pass(chunk, this.#tap?.isComplete === true);
    }
    const hasRoom = this.#pass(chunk, false);
    this.#tap?.push(chunk);
    return hasRoom;
  }

  #pass(chunk: Buffer, isLast: boolean): boolean {
    return this.#events === undefined ? this.#options.taker.onData(chunk, isLast) : this.#events.push(chunk, isLast);
  }

  #createGate(tap: UsageTap): BudgetGate | undefined {
    const { budget } = this.#options;
    return budget === undefined
      ? undefined
      : new BudgetGate({
          budget,
          used: () => ({ usage: tap.usageSoFar, model: this.#served }),
          pass: (chunk, isLast) => this.#pass(chunk, isLast),
          resume: () => this.resume(),
          stop: (reason) => this.abort(reason),
        });
  }

  onEnd(): void {
    if (this.#isSettled) return;
    if (this.#errorBody !== undefined) {
      const body = Buffer.concat(this.#errorBody);
      const failure = providerFailure({ status: this.#status ?? 500, headers: this.#headers, body });
      // A piece of an error is not what the provider said.
      this.#fail(this.#errorBytes > MAX_ERROR_BODY_BYTES ? { error: failure.error } : failure, false);
      return;
    }
    this.#tap?.finish();
    this.#gate?.end();
    this.#events?.end();
    if (this.#tap?.streamError !== undefined) {
      this.#end({ error: new LonghaulError('provider_unavailable', this.#tap.streamError) }, true, true);
    } else if (this.#tap?.isComplete === true) this.#end(undefined, true);
    else this.#end({ error: new LonghaulError('provider_unavailable', 'the answer ended before it was whole') }, true);
  }

  onFailure(error: Error, billed: boolean): void {
    const known = error instanceof LonghaulError;
    const reason = known ? error : new LonghaulError('provider_unavailable', messageOf(error), { cause: error });
    this.#fail({ error: reason }, billed);
  }

  #failAfter(ms: number, what: string): NodeJS.Timeout {
    return setTimeout(() => {
      this.#fail({ error: new LonghaulError('provider_timeout', `${what} did not come within ${ms} ms`) }, true);
    }, ms);
  }

  #fail(failure: ProtocolError, billed: boolean): void {
    if (this.#isSettled) return;
    this.#tap?.finish();
    this.#end(failure, billed);
    this.#running?.abort();
  }

  #end(failure: ProtocolError | undefined, billed: boolean, failureWasStreamed = false): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    clearTimeout(this.#waitTimer);
    clearTimeout(this.#totalTimer);
    const tap = billed && this.#ttftMs !== null ? this.#tap : undefined;
    this.#settle({
      usage: tap?.usage ?? { ...NO_USAGE },
      usageBasis: basisOf(tap),
      httpStatus:
        failure === undefined || this.#tap !== undefined
          ? this.#status
          : (failure.original?.status ?? failure.error.status),
      ttftMs: this.#ttftMs,
      latencyMs: Math.round(performance.now() - this.#startedMs),
      served: this.#served,
      attempts: this.#running?.attempts ?? [],
      failure,
      failureWasStreamed,
    });
  }
}

function basisOf(tap: UsageTap | undefined): CallOutcome['usageBasis'] {
  if (tap === undefined) return 'none';
  if (tap.isFinal) return 'reported';
  return tap.usage.outputTokens > 0 || tap.isReported ? 'estimated' : 'none';
}

function internal(cause: unknown): LonghaulError {
  return new LonghaulError('internal', 'the provider could not be asked', { cause });
}

function messageOf(error: Error): string {
  const code = (error as { code?: unknown }).code;
  return `the connection to the provider failed${typeof code === 'string' ? ` (${code})` : ''}`;
}
