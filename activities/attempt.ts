import { ApplicationFailure, CancelledFailure, Context } from '@temporalio/activity';
import { LonghaulError } from '../contracts/error-codes.ts';
import { isDataError, isOutage } from '../db/pool.ts';

/** Beats are cheap; cancellation arrives with their answers, so this is also the delay of an interrupt. */
const BEAT_MS = 1_000;

const startedMs = new WeakMap<Context, number>();

/** When this worker began the attempt; Temporal tells only when it was due. */
export function attemptStartedMs(context: Context): number {
  return startedMs.get(context) ?? Date.now();
}

/**
 * Runs the whole of an activity under a heartbeat: one on entry, then by timer, so that slow set-up never looks like a
 * dead worker. `details` are shown in the Temporal UI. `signal` fires when the workflow cancels or the worker shuts down.
 */
export async function withHeartbeat<T>(
  work: (signal: AbortSignal) => Promise<T>,
  details: () => unknown = () => undefined,
): Promise<T> {
  const context = Context.current();
  startedMs.set(context, Date.now());
  context.heartbeat(details());
  const timer = setInterval(() => context.heartbeat(details()), BEAT_MS);
  try {
    return await work(context.cancellationSignal);
  } catch (error) {
    throw toFailure(error, context);
  } finally {
    clearInterval(timer);
  }
}

/** Runs short database work; errors become failures with the right retry class. */
export async function asFailure<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toFailure(error, Context.current());
  }
}

/** True when the workflow asked to stop; false when only this worker is going down or lost its claim. */
export function cancelledByWorkflow(context: Context): boolean {
  return context.cancellationSignal.aborted && context.cancellationDetails?.cancelRequested === true;
}

/**
 * A shutdown or a lost claim must never look like a user's stop: the turn would end as if somebody had asked for it.
 */
function toFailure(error: unknown, context: Context): Error {
  if (context.cancellationSignal.aborted) {
    if (cancelledByWorkflow(context)) return new CancelledFailure('cancelled by the workflow');
    return ApplicationFailure.retryable('the worker is going down', 'worker_shutdown');
  }
  if (error instanceof ApplicationFailure) return error;
  if (isOutage(error)) return ApplicationFailure.retryable('the database is away', 'database_unavailable');
  // The text goes to the log: it may quote what a provider or a tool said, and history holds no content.
  context.log.warn('activity failed', { error });
  if (error instanceof LonghaulError) {
    return ApplicationFailure.create({
      message: error.code,
      type: error.code,
      nonRetryable: !error.retryable,
      ...(error.retryAfterMs === undefined ? {} : { nextRetryDelay: error.retryAfterMs }),
    });
  }
  // Data that Postgres can never take stays wrong however often it is tried.
  if (isDataError(error)) return ApplicationFailure.nonRetryable('the record cannot hold this data', 'internal');
  return ApplicationFailure.retryable(error instanceof Error ? error.name : 'unknown error', 'internal');
}
