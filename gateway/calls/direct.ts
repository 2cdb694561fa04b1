import type { Authenticator } from '../auth.ts';
import type { GatewayTimeouts } from '../config.ts';
import type { GatewayMetrics } from '../metrics.ts';
import type { CallTelemetry } from '../trace.ts';
import { answerWith } from './answer-with.ts';
import { MeteredCall, type Meter } from './metered-call.ts';
import type { ModelRequest } from './model-request.ts';
import { UpstreamCall } from './run-call.ts';

interface DirectDeps {
  authenticator: Authenticator;
  meter: Meter;
  metrics: GatewayMetrics;
  telemetry: CallTelemetry;
  timeouts: GatewayTimeouts;
}

/** A call that belongs to one response: bytes pass through at the caller's pace, and end when the caller goes away. */
export async function serveDirect(deps: DirectDeps, request: ModelRequest): Promise<void> {
  const giveBack = deps.authenticator.takeSlot(request.caller);
  try {
    const isFree = request.upstream.operation !== 'generate';
    const metered = isFree ? undefined : await MeteredCall.reserve(deps.meter, request);
    if (isGone(request)) metered?.cancel();
    else await callAndPass(deps, request, metered);
  } finally {
    giveBack();
  }
}

/** The caller went away while its key or its money was looked for: nobody is there to answer to. */
function isGone({ res }: ModelRequest): boolean {
  return res.destroyed || res.closed;
}

async function callAndPass(deps: DirectDeps, request: ModelRequest, metered: MeteredCall | undefined): Promise<void> {
  deps.metrics.started();
  const { outcome, end } = await answerWith(request, (taker) => {
    const call = new UpstreamCall({
      provider: request.provider,
      request: request.upstream,
      isStream: request.isStream,
      timeouts: deps.timeouts,
      budget: metered?.budget,
      taker,
    });
    // One in the background is charged by its own row: a note of this call, too, would charge it twice after a crash.
    if (request.background === undefined) metered?.started(call);
    return call;
  });
  const served = outcome.served ?? { model: request.model, provider: request.provider.name };
  deps.metrics.ended(served.model, served.provider, outcome);
  request.onUsage?.(outcome.usage);
  if (request.background?.isTaken() === true) {
    // It goes on at the provider and is paid when it has ended.
    metered?.cancel();
    request.background.ended();
  } else if (metered !== undefined) deps.telemetry.ended(request, metered.settle(outcome));
  end();
}
