import type { ModelDeployment } from '../../contracts/model-routes.ts';
import { ROUTE_DEFAULTS, type AttemptFailure, type RoutingStrategy } from '../../contracts/routing.ts';
import type { Protocol } from '../protocol.ts';
import type { Provider, ProviderRequest } from '../providers/port.ts';

/** Failures older than this do not count towards a cooldown. */
const FAIL_WINDOW_MS = 60_000;
/** A deployment nobody measured for this long is measured anew. */
const LATENCY_MEMORY_MS = 60_000;
/** What a failure counts as when deployments are compared by speed. */
const FAILED_LATENCY_MS = 30_000;
const EWMA_WEIGHT = 0.3;
const MAX_RETRY_AFTER_MS = 600_000;

/**
 * How a deployment has done lately, in this process: other gateways learn the same by their own calls. Outlives the
 * configuration, so that an edit elsewhere does not wake a deployment that is left alone.
 */
export class DeploymentHealth {
  inFlight = 0;
  #cooldownUntilMs = 0;
  #isRateLimited = false;
  #failsAtMs: number[] = [];
  #latency: { ms: number; atMs: number } | undefined;

  /** How long it is still to be left alone. */
  cooldownMs(nowMs: number): number {
    return Math.max(0, this.#cooldownUntilMs - nowMs);
  }

  /** It asked for the pause itself: asking before its end would be refused. */
  get isRateLimited(): boolean {
    return this.#isRateLimited;
  }

  /** Time to the first byte of late; undefined when unknown. */
  latencyMs(nowMs: number): number | undefined {
    const latency = this.#latency;
    return latency === undefined || nowMs - latency.atMs > LATENCY_MEMORY_MS ? undefined : latency.ms;
  }

  succeeded(firstByteMs: number, nowMs: number): void {
    this.#failsAtMs = [];
    this.#cooldownUntilMs = 0;
    this.#measure(firstByteMs, nowMs);
  }

  failed(
    failure: AttemptFailure,
    limits: { allowedFails: number; cooldownMs: number },
    nowMs: number,
    retryAfterMs: number | undefined,
  ): void {
    if (failure === 'context_window' || failure === 'content_policy' || failure === 'rejected') return;
    if (limits.allowedFails === Number.POSITIVE_INFINITY) return;
    this.#measure(FAILED_LATENCY_MS, nowMs);
    this.#failsAtMs = [...this.#failsAtMs.filter((atMs) => nowMs - atMs < FAIL_WINDOW_MS), nowMs];
    // A wrong key stays wrong, and who limits the rate means everybody: neither needs a second proof.
    const isCertain = failure === 'auth' || failure === 'not_found' || failure === 'rate_limited';
    if (!isCertain && this.#failsAtMs.length <= limits.allowedFails) return;
    const pauseMs = Math.min(Math.max(retryAfterMs ?? 0, limits.cooldownMs), MAX_RETRY_AFTER_MS);
    this.#cooldownUntilMs = nowMs + pauseMs;
    this.#isRateLimited = failure === 'rate_limited' && retryAfterMs !== undefined;
    this.#failsAtMs = [];
  }

  #measure(ms: number, nowMs: number): void {
    const known = this.latencyMs(nowMs);
    this.#latency = { ms: known === undefined ? ms : known + EWMA_WEIGHT * (ms - known), atMs: nowMs };
  }
}

/** Who may answer for a route, ready to be asked. */
export interface Deployment {
  /** Name in ledger and attempts; null for an upstream that is known by the environment alone. */
  id: string | null;
  providerName: string;
  /** As the provider knows it; may hold a `*`. */
  model: string;
  weight: number;
  /** Undefined: the gateway's own. */
  timeoutMs: number | undefined;
  firstByteTimeoutMs: number | undefined;
  price: ModelDeployment['price'] | undefined;
  speaks: (protocol: Protocol, operation: ProviderRequest['operation']) => boolean;
  /** Made at the first call. */
  provider: () => Provider;
  health: DeploymentHealth;
  /** Why it cannot be asked at all (a variable that is not set); undefined when it can. */
  problem: string | undefined;
}

/** A compiled route. */
export interface Route {
  /** May end with a `*`. */
  name: string;
  deployments: readonly Deployment[];
  strategy: RoutingStrategy;
  fallbacks: Readonly<Partial<Record<'default' | AttemptFailure, readonly string[]>>>;
  retries: number;
  allowedFails: number;
  cooldownMs: number;
}

/** A route of the environment: one upstream, asked once, never left alone. */
export function plainRoute(name: string, deployment: Deployment): Route {
  return {
    name,
    deployments: [deployment],
    strategy: ROUTE_DEFAULTS.strategy,
    fallbacks: {},
    retries: 0,
    allowedFails: Number.POSITIVE_INFINITY,
    cooldownMs: 0,
  };
}
