import { Context } from '@temporalio/activity';
import type { Queryable } from '../db/pool.ts';
import { addOutage } from '../db/queries/outages.ts';
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

/** For people: how long something was away. */
export function inWords(awayMs: number): string {
  return awayMs < 120_000 ? `${Math.round(awayMs / 1_000)} seconds` : `${Math.round(awayMs / 60_000)} minutes`;
}
