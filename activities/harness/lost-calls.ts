import { withTransaction } from '../../db/pool.ts';
import { getEffect, moveEffect } from '../../db/queries/effects.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { markDelivered } from '../../db/queries/harness-calls.ts';
import { beginEpoch, listOrphanedCalls } from '../../db/queries/harness-sessions.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { loseEffect } from '../effects/close.ts';

/** Calls that are looked at; a harness has a few under way when it dies. */
const CALLS = 200;

/**
 * The harness begins a new life within its turn. What it had begun by itself and may have done is lost: a person must say, as
 * for any effect; what only reads it may do again. Gives the calls that wait for such an answer.
 */
export async function beginLife(deps: ActivityDeps, session: SessionForTurn, turn: number): Promise<string[]> {
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, session.id);
    await beginEpoch(tx, session.id);
  });
  const waiting: string[] = [];
  for (const call of await listOrphanedCalls(deps.pool, session.id, turn, CALLS)) {
    if (call.executor !== 'harness') continue;
    if (call.state === 'started' && call.idempotent) await failInterrupted(deps, session.id, call);
    else if (call.state === 'started' || call.state === 'unknown') {
      const effect = await getEffect(deps.pool, call.effectId);
      if (effect.state === 'started') await loseEffect(deps, session, effect, 'the harness died while it ran');
      waiting.push(call.id);
    }
  }
  return waiting;
}

async function failInterrupted(
  deps: ActivityDeps,
  sessionId: string,
  { id, effectId }: { id: string; effectId: string },
): Promise<void> {
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, sessionId);
    const content = [{ type: 'text' as const, text: 'Interrupted: the harness was started anew.' }];
    if (!(await moveEffect(tx, effectId, 'started', 'failed', { result: { content }, isError: true }))) return;
    await markDelivered(tx, id);
    await appendEvents(tx, sessionId, [
      {
        type: 'agent.tool_result',
        dedupeKey: `result/${effectId}/interrupted`,
        payload: { tool_use_id: effectId, content, is_error: true },
      },
    ]);
  });
}
