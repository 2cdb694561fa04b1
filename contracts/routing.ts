/** Zod-free. What routing is made of, for the gateway's hot path, which has no use for zod. */

/** How a route picks among its deployments. */
export const ROUTING_STRATEGIES = ['simple-shuffle', 'least-busy', 'latency-based'] as const;
export type RoutingStrategy = (typeof ROUTING_STRATEGIES)[number];

/** What a route does when it does not say otherwise. */
export const ROUTE_DEFAULTS = {
  strategy: 'simple-shuffle',
  /** Attempts after the first one within the route. */
  retries: 2,
  /** Failures within a minute that a deployment may have before it is left alone. */
  allowedFails: 3,
  cooldownMs: 5_000,
} as const;

/** Why an attempt failed. */
export type AttemptFailure =
  | 'rate_limited'
  | 'unavailable'
  | 'timeout'
  | 'context_window'
  | 'content_policy'
  /** The provider refused the gateway's key, or the gateway lacks it. */
  | 'auth'
  | 'not_found'
  /** The request itself is wrong: nobody else would take it. */
  | 'rejected';

/** One try of one deployment, as ledger and traces keep it. */
export interface Attempt {
  deployment: string | null;
  provider: string;
  model: string;
  /** HTTP status of the provider; null when there was none. */
  status: number | null;
  /** null: this attempt answered. */
  error: AttemptFailure | 'cancelled' | null;
  ms: number;
}
