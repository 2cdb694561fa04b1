import { assertNever } from '../../contracts/states.ts';
import type { RoutingStrategy } from '../../contracts/routing.ts';
import type { Deployment } from './deployment.ts';

/** Deployments this close to the fastest one count as equally fast, or a small lead would take all calls. */
const LATENCY_BUFFER = 1.1;

/** The order in which deployments are asked: the first is the strategy's choice. */
export function inOrder(
  deployments: readonly Deployment[],
  strategy: RoutingStrategy,
  nowMs: number,
  random: () => number = Math.random,
): Deployment[] {
  const shuffled = shuffle(deployments, random);
  if (shuffled.length < 2) return shuffled;
  switch (strategy) {
    case 'simple-shuffle':
      return shuffled;
    case 'least-busy':
      return shuffled.toSorted((a, b) => a.health.inFlight - b.health.inFlight);
    case 'latency-based': {
      // What nobody has measured is asked first: that is how it gets measured.
      const latencyOf = (deployment: Deployment): number => deployment.health.latencyMs(nowMs) ?? 0;
      const fastest = Math.min(...shuffled.map(latencyOf));
      const rank = (deployment: Deployment): number =>
        latencyOf(deployment) <= fastest * LATENCY_BUFFER ? fastest : latencyOf(deployment);
      return shuffled.toSorted((a, b) => rank(a) - rank(b));
    }
    default:
      return assertNever(strategy);
  }
}

/** By weight and without putting back; those of weight 0 come last. */
function shuffle(deployments: readonly Deployment[], random: () => number): Deployment[] {
  if (deployments.length < 2) return [...deployments];
  // An exponential of rate w: the smallest of several is each one's with probability w / sum.
  return deployments
    .map((deployment) => ({
      deployment,
      at: deployment.weight > 0 ? -Math.log(1 - random()) / deployment.weight : Number.POSITIVE_INFINITY,
    }))
    .toSorted((a, b) => (a.at === b.at ? 0 : a.at - b.at))
    .map(({ deployment }) => deployment);
}
