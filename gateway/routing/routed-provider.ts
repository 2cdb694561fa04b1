import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Attempt, AttemptFailure } from '../../contracts/routing.ts';
import type { GatewayTimeouts } from '../config.ts';
import type { AnswerSink, Provider, ProviderRequest, RunningCall } from '../providers/port.ts';
import { AttemptCall, type AttemptEnd, type Candidate } from './attempt.ts';
import { inOrder } from './choose.ts';
import { mayTryAgain, mayTryElsewhere } from './failures.ts';
import type { Route } from './deployment.ts';
import { withModel } from './request.ts';

/** A route as it was found for one name: `star` is what its `*` stands for. */
export interface FoundRoute {
  route: Route;
  star: string;
}

export interface RoutedOptions {
  asked: FoundRoute;
  /** Looks a fallback up; undefined when there is no such model. */
  find: (name: string) => FoundRoute | undefined;
  isStream: boolean;
  timeouts: GatewayTimeouts;
}

/** More attempts than this are never made for one call, whatever chains say. */
const MAX_ATTEMPTS = 15;
const FIRST_BACKOFF_MS = 200;
const LONGEST_BACKOFF_MS = 2_000;
/** A provider that wants to be left alone for longer is not waited for. */
const LONGEST_WAIT_MS = 10_000;

/** One call of a route. It stands for all deployments and fallbacks of it, and asks them until one answers. */
export class RoutedProvider implements Provider {
  readonly name: string;
  readonly #options: RoutedOptions;

  constructor(options: RoutedOptions, primary: Candidate) {
    this.#options = options;
    this.name = primary.deployment.providerName;
  }

  start(request: ProviderRequest, sink: AnswerSink): RunningCall {
    return new RoutedCall(this.#options, request, sink);
  }

  only(deployment: string | null): Provider | undefined {
    const { asked } = this.#options;
    const one = asked.route.deployments.find(({ id }) => id === deployment);
    if (one === undefined) return undefined;
    const route = { ...asked.route, deployments: [one], fallbacks: {} };
    const pinned = { deployment: one, model: one.model };
    return new RoutedProvider({ ...this.#options, asked: { ...asked, route } }, pinned);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Everyone of a route who could answer this request, whether or not he is left alone at the moment. */
export function candidatesOf(found: FoundRoute, request: Pick<ProviderRequest, 'protocol' | 'operation'>): Candidate[] {
  return found.route.deployments
    .filter(({ problem, speaks }) => problem === undefined && speaks(request.protocol, request.operation))
    .map((deployment) => ({ deployment, model: deployment.model.replace('*', () => found.star) }));
}

class RoutedCall implements RunningCall {
  readonly attempts: Attempt[] = [];
  readonly #options: RoutedOptions;
  readonly #request: ProviderRequest;
  readonly #sink: AnswerSink;
  readonly #visited = new Set<Route>();
  #route: Route;
  #untried: Candidate[] = [];
  #triesLeft = 0;
  #backoffMs = FIRST_BACKOFF_MS;
  #current: AttemptCall | undefined;
  #pause: NodeJS.Timeout | undefined;
  #isAborted = false;

  constructor(options: RoutedOptions, request: ProviderRequest, sink: AnswerSink) {
    this.#options = options;
    this.#request = request;
    this.#sink = sink;
    this.#route = options.asked.route;
    const first = this.#enter(options.asked) ?? this.#fallback(this.#whyAllRest()) ?? this.#lastResort();
    if (first === undefined) this.#refuse();
    else this.#ask(first);
  }

  resume(): void {
    this.#current?.resume();
  }

  abort(): void {
    if (this.#isAborted) return;
    this.#isAborted = true;
    clearTimeout(this.#pause);
    this.#current?.abort();
  }

  /** Goes to a route and takes its first choice; undefined when nobody there can be asked now. */
  #enter(found: FoundRoute): Candidate | undefined {
    const nowMs = Date.now();
    this.#visited.add(found.route);
    const candidates = candidatesOf(found, this.#request).filter(
      ({ deployment }) => deployment.health.cooldownMs(nowMs) === 0,
    );
    if (candidates.length === 0) return undefined;
    const byDeployment = new Map(candidates.map((candidate) => [candidate.deployment, candidate]));
    const ordered = inOrder([...byDeployment.keys()], found.route.strategy, nowMs);
    this.#route = found.route;
    this.#untried = ordered.flatMap((deployment) => byDeployment.get(deployment) ?? []);
    this.#triesLeft = found.route.retries;
    this.#backoffMs = FIRST_BACKOFF_MS;
    return this.#untried.shift();
  }

  /** The chain is that of the model the caller asked for, also when a fallback has failed. */
  #fallback(failure: AttemptFailure): Candidate | undefined {
    const { asked, find } = this.#options;
    if (failure === 'rejected') return undefined;
    for (const name of asked.route.fallbacks[failure] ?? asked.route.fallbacks.default ?? []) {
      const found = find(name);
      if (found === undefined || this.#visited.has(found.route)) continue;
      const candidate = this.#enter(found);
      if (candidate !== undefined) return candidate;
    }
    return undefined;
  }

  /** Everybody is left alone: ask the one whose pause ends first, unless he said himself when to come back. */
  #lastResort(): Candidate | undefined {
    const nowMs = Date.now();
    return candidatesOf(this.#options.asked, this.#request)
      .filter(({ deployment }) => !deployment.health.isRateLimited)
      .toSorted((a, b) => a.deployment.health.cooldownMs(nowMs) - b.deployment.health.cooldownMs(nowMs))[0];
  }

  #whyAllRest(): AttemptFailure {
    const limited = this.#options.asked.route.deployments.some(({ health }) => health.isRateLimited);
    return limited ? 'rate_limited' : 'unavailable';
  }

  #refuse(): void {
    const nowMs = Date.now();
    const waits = candidatesOf(this.#options.asked, this.#request).map(({ deployment }) =>
      deployment.health.cooldownMs(nowMs),
    );
    const error = new LonghaulError('provider_rate_limited', 'every provider of this model limits the rate', {
      retryAfterMs: Math.max(1, Math.min(...waits)),
    });
    this.#sink.onFailure(error, false);
  }

  /** Nothing may escape from here: a later attempt begins in a timer, where nobody would catch it. */
  #ask(candidate: Candidate): void {
    try {
      this.#attempt(candidate);
    } catch (error) {
      this.#sink.onFailure(error instanceof Error ? error : new Error('an attempt failed', { cause: error }), false);
    }
  }

  #attempt({ deployment, model }: Candidate): void {
    const { isStream, timeouts } = this.#options;
    const { body, model: named } = this.#request;
    const request = model === named ? this.#request : { ...this.#request, model, body: withModel(body, model) };
    this.#current = new AttemptCall({
      candidate: { deployment, model },
      request,
      sink: this.#sink,
      firstByteMs: isStream
        ? (deployment.firstByteTimeoutMs ?? timeouts.firstByteMs)
        : (deployment.timeoutMs ?? timeouts.totalMs),
      looksAtFirstEvent: this.#route.retries > 0,
      attempts: this.attempts,
      limits: this.#route,
      onFailed: (end) => this.#next({ deployment, model }, end),
    });
    this.#current.start();
    if (this.#isAborted) this.#current.abort();
  }

  /** After an attempt that failed before its first byte: somebody else, the same again, or the failure is the answer. */
  #next(failed: Candidate, end: AttemptEnd): void {
    if (this.#isAborted) return;
    const { candidate, waitMs } = this.#choose(failed, end);
    if (candidate === undefined || this.attempts.length >= MAX_ATTEMPTS) end.deliver();
    else if (waitMs === 0) this.#ask(candidate);
    else this.#pause = setTimeout(() => this.#ask(candidate), waitMs);
  }

  #choose(
    failed: Candidate,
    { failure, retryAfterMs }: AttemptEnd,
  ): { candidate: Candidate | undefined; waitMs: number } {
    if (this.#triesLeft > 0 && mayTryElsewhere(failure)) {
      const other = this.#untried.shift();
      if (other !== undefined) {
        this.#triesLeft -= 1;
        return { candidate: other, waitMs: 0 };
      }
      const waitMs = Math.max(retryAfterMs ?? 0, this.#backoffMs * (0.5 + Math.random() / 2));
      if (mayTryAgain(failure) && waitMs <= LONGEST_WAIT_MS) {
        this.#triesLeft -= 1;
        this.#backoffMs = Math.min(this.#backoffMs * 2, LONGEST_BACKOFF_MS);
        return { candidate: failed, waitMs };
      }
    }
    return { candidate: this.#fallback(failure), waitMs: 0 };
  }
}
