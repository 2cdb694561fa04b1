import { withTransaction } from '../../db/pool.ts';
import { stillWaiting } from '../../db/queries/effects.ts';
import { lockSession, setIdle } from '../../db/queries/session-status.ts';
import { lockTurn } from '../../db/queries/turns.ts';
import type { PauseTurnArgs } from '../../workflows/activity-types.ts';
import { asFailure } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';

/** Tells viewers that the session waits for them, and for which events. */
export async function pauseTurn(deps: ActivityDeps, args: PauseTurnArgs): Promise<void> {
  await asFailure(() =>
    withTransaction(deps.pool, async (tx) => {
      await lockSession(tx, args.sessionId);
      if ((await lockTurn(tx, args.sessionId, args.turn)) !== 'running') return;
      // Answers that came meanwhile are not asked for again.
      const eventIds = await stillWaiting(tx, args.eventIds);
      if (eventIds.length === 0) return;
      const reason = { type: 'requires_action', event_ids: eventIds } as const;
      await setIdle(tx, args.sessionId, reason, `pause/${args.turn}/${args.step}/${args.pause}`);
    }),
  );
}
