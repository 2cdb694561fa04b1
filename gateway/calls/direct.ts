import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Pool } from '../../db/pool.ts';
import type { Authenticator } from '../auth.ts';
import { checkBudget } from '../budget.ts';
import type { GatewayTimeouts } from '../config.ts';
import type { GatewayMetrics } from '../metrics.ts';
import type { CallTelemetry } from '../trace.ts';
import { endWithFailure } from './broadcast.ts';
import type { PriceBook } from '../prices/price-book.ts';
import { ledgerEntry, type LedgerWriter } from './ledger-writer.ts';
import { REQUEST_ID_HEADER } from '../protocol.ts';
import type { ModelRequest } from './model-request.ts';
import { UpstreamCall } from './run-call.ts';

interface DirectDeps {
  pool: Pool;
  authenticator: Authenticator;
  prices: PriceBook;
  ledger: LedgerWriter;
  metrics: GatewayMetrics;
  telemetry: CallTelemetry;
  timeouts: GatewayTimeouts;
}

/** A call that belongs to one response: bytes pass through at the caller's pace, and end when the caller goes away. */
export async function serveDirect(deps: DirectDeps, request: ModelRequest): Promise<void> {
  await checkBudget(deps.pool, request.caller, request.model);
  const giveBack = deps.authenticator.takeSlot(request.caller);
  deps.metrics.started();
  const { res } = request;
  let isStreamed = false;
  const call = new UpstreamCall({
    provider: request.provider,
    request: request.upstream,
    isStream: request.isStream,
    timeouts: deps.timeouts,
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
  const onDrain = (): void => call.resume();
  const onClose = (): void => call.abort(new LonghaulError('cancelled', 'the caller went away'));
  res.on('drain', onDrain);
  res.on('close', onClose);
  const outcome = await call.outcome;
  res.removeListener('drain', onDrain);
  res.removeListener('close', onClose);
  giveBack();
  deps.metrics.ended(
    outcome.served?.model ?? request.model,
    outcome.served?.provider ?? request.provider.name,
    outcome,
  );
  request.onUsage?.(outcome.usage);
  if (request.background?.isTaken() === true) request.background.ended();
  else if (request.upstream.operation === 'generate') {
    const facts = { ...request, provider: request.provider.name, place: undefined };
    const entry = ledgerEntry(deps.prices, facts, outcome);
    deps.ledger.write(entry);
    deps.telemetry.ended(request, entry, outcome);
  }
  if (outcome.failure === undefined) res.end();
  else {
    const how = { protocol: request.protocol, requestId: request.requestId, isStream: isStreamed };
    endWithFailure(res, how, { failure: outcome.failure, wasStreamed: outcome.failureWasStreamed });
  }
}
