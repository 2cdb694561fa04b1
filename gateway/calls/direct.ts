import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Authenticator } from '../auth.ts';
import type { GatewayTimeouts } from '../config.ts';
import type { GatewayMetrics } from '../metrics.ts';
import type { CallTelemetry } from '../trace.ts';
import { endWithFailure } from './broadcast.ts';
import { REQUEST_ID_HEADER } from '../protocol.ts';
import { MeteredCall, type Meter } from './metered-call.ts';
import type { ModelRequest } from './model-request.ts';
import { UpstreamCall, type CallOutcome } from './run-call.ts';

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
  const { res } = request;
  let isStreamed = false;
  const call = new UpstreamCall({
    provider: request.provider,
    request: request.upstream,
    isStream: request.isStream,
    timeouts: deps.timeouts,
    budget: metered?.budget,
    taker: {
      // The head waits for the first piece: until then a failure can still be told by the status.
      onHead: (status, headers, isStream) => {
        isStreamed = isStream;
        res.statusCode = status;
        for (const [name, value] of Object.entries(headers)) res.setHeader(name, value);
        res.setHeader(REQUEST_ID_HEADER, request.requestId);
      },
      onData: (chunk) => res.write(chunk),
    },
  });
  // One in the background is charged by its own row: a note of this call, too, would charge it twice after a crash.
  if (request.background === undefined) metered?.started(call);
  const outcome = await untilOver(call, res);
  const served = outcome.served ?? { model: request.model, provider: request.provider.name };
  deps.metrics.ended(served.model, served.provider, outcome);
  request.onUsage?.(outcome.usage);
  if (request.background?.isTaken() === true) {
    // It goes on at the provider and is paid when it has ended.
    metered?.cancel();
    request.background.ended();
  } else if (metered !== undefined) deps.telemetry.ended(request, metered.settle(outcome));
  if (outcome.failure === undefined) res.end();
  else {
    const how = { protocol: request.protocol, requestId: request.requestId, isStream: isStreamed };
    endWithFailure(res, how, { failure: outcome.failure, wasStreamed: outcome.failureWasStreamed });
  }
}

async function untilOver(call: UpstreamCall, res: ModelRequest['res']): Promise<CallOutcome> {
  const onDrain = (): void => call.resume();
  const onClose = (): void => call.abort(new LonghaulError('cancelled', 'the caller went away'));
  res.on('drain', onDrain);
  res.on('close', onClose);
  const outcome = await call.outcome;
  res.removeListener('drain', onDrain);
  res.removeListener('close', onClose);
  return outcome;
}
