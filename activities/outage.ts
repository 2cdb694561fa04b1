import { ApplicationFailure, Context } from '@temporalio/activity';
import { ERROR_CATALOGUE, LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';
import type { Queryable } from '../db/pool.ts';
import { addOutage } from '../db/queries/outages.ts';
import type { Logger } from '../telemetry/logger.ts';
import { attemptStartedMs } from './attempt.ts';

/**
 * Records that this attempt failed because something below is away, and returns how long that has been seen at `place`,
 * over all attempts. The caller gives up when that is too long. Temporal's own schedule-to-close bound cannot tell: it
 * also runs while no worker is there.
 */
export async function noteOutage(db: Queryable, sessionId: string, place: string): Promise<number> {
  const context = Context.current();
  return addOutage(db, {
    sessionId,
    place,
    dueAtMs: context.info.currentAttemptScheduledTimestampMs,
    ranMs: Date.now() - attemptStartedMs(context),
  });
}

const SANDBOX_AWAY = new Set<unknown>(['sandbox_unavailable', 'sandbox_busy', 'sandbox_lost', 'sandbox_not_found']);

/** The error to end this attempt with: another attempt follows unless the sandbox has been away for too long. */
export async function giveUpLate(
  { pool, logger }: { pool: Queryable; logger: Logger },
  { sessionId, place }: { sessionId: string; place: string },
  thrown: unknown,
): Promise<unknown> {
  const error = sandboxError(thrown);
  const code = error instanceof LonghaulError ? error.code : error instanceof ApplicationFailure ? error.type : null;
  if (!SANDBOX_AWAY.has(code)) return error;
  const awayMs = await noteOutage(pool, sessionId, place);
  if (awayMs < LIMITS.sandboxOutageMs) return error;
  logger.error({ sessionId, place, err: error }, 'no sandbox, given up');
  const { next } = ERROR_CATALOGUE.sandbox_unavailable;
  return ApplicationFailure.nonRetryable(`no sandbox for ${inWords(awayMs)}. ${next}`, 'sandbox_unavailable');
}

/** A provider that did not answer within one of our own limits is away, like one that says so. */
export function sandboxError(thrown: unknown): unknown {
  if (!(thrown instanceof Error) || thrown.name !== 'TimeoutError') return thrown;
  return new LonghaulError('sandbox_unavailable', 'the provider of the sandbox does not answer', { cause: thrown });
}

/** For people: how long something was away. */
export function inWords(awayMs: number): string {
  return awayMs < 120_000 ? `${Math.round(awayMs / 1_000)} seconds` : `${Math.round(awayMs / 60_000)} minutes`;
}
