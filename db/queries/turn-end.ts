import type { EffectState, StopReasonType, TurnState } from '../../contracts/states.ts';
import type { Pool, Queryable } from '../pool.ts';
import { withTransaction } from '../pool.ts';
import { cancelApprovals } from './approvals.ts';
import type { EffectRow } from './effects.ts';
import { listOpenEffects, moveEffect, resultEvent } from './effects.ts';
import { appendEvents } from './events.ts';
import { endInputs, endTurnAnswers } from './inputs.ts';
import { clearOutages } from './outages.ts';
import { lockSession, setIdle } from './session-status.ts';
import { revokeTurnKeys } from './virtual-keys.ts';
import { closeTurn, lockTurn, openTurn, runningTurnsBefore } from './turns.ts';

export interface TurnEnd {
  sessionId: string;
  turn: number;
  state: Exclude<TurnState, 'running'>;
  stopReason: StopReasonType;
  /** For people: stands on every input and tool call that this ends. */
  reason: string;
  /** Messages of the turn: they get their terminal state even when the turn was never opened. */
  eventIds: string[];
}

/** Ends a turn in a transaction of its own. */
export async function recordTurnEnd(pool: Pool, end: TurnEnd): Promise<void> {
  await withTransaction(pool, (tx) => writeTurnEnd(tx, end));
}

const INPUT_END = { completed: 'completed', failed: 'failed', interrupted: 'cancelled' } as const;

/** Gives the turn, its tool calls, questions and inputs their final state, once; a repeat changes nothing. */
export async function writeTurnEnd(tx: Queryable, end: TurnEnd): Promise<void> {
  await lockSession(tx, end.sessionId);
  if ((await lockTurn(tx, end.sessionId, end.turn)) === undefined) {
    // Interrupted before its first step: the record still shows that the turn was there.
    await openTurn(tx, end.sessionId, end.turn, 'none');
  }
  const error = end.state === 'failed' ? { code: end.stopReason, message: end.reason } : undefined;
  const inputState = INPUT_END[end.state];
  if (!(await closeTurn(tx, end.sessionId, end.turn, end.state, { type: end.stopReason }, error))) {
    // Another attempt was first; the messages it did not know of end all the same.
    await endInputs(tx, { sessionId: end.sessionId, eventIds: end.eventIds }, inputState, end.reason);
    return;
  }
  await closeEffects(tx, end);
  await revokeTurnKeys(tx, end.sessionId, end.turn);
  await clearOutages(tx, end.sessionId);
  if (error !== undefined) await appendError(tx, end);
  await endTurnAnswers(tx, end.sessionId, end.turn, end.reason);
  await endInputs(tx, { sessionId: end.sessionId, turn: end.turn }, inputState, end.reason);
  await endInputs(tx, { sessionId: end.sessionId, eventIds: end.eventIds }, inputState, end.reason);
  await setIdle(tx, end.sessionId, { type: end.stopReason }, `turn-end/${end.turn}`);
}

/** Turns before `turn` that still run in the record: their workflow was lost, so nobody else will end them. */
export async function closeStaleTurns(tx: Queryable, sessionId: string, turn: number): Promise<void> {
  for (const stale of await runningTurnsBefore(tx, sessionId, turn)) {
    const reason = 'the workflow of this turn was lost';
    await writeTurnEnd(tx, {
      sessionId,
      turn: stale,
      state: 'failed',
      stopReason: 'retries_exhausted',
      reason,
      eventIds: [],
    });
  }
}

async function closeEffects(tx: Queryable, end: TurnEnd): Promise<void> {
  const open = await listOpenEffects(tx, end.sessionId, end.turn);
  if (open.length === 0) return;
  await cancelApprovals(
    tx,
    end.sessionId,
    open.map((effect) => effect.id),
  );
  for (const effect of open) {
    const to = closingState(effect);
    const text = to === 'unknown' ? `Outcome unknown: ${end.reason}` : `Not finished: ${end.reason}`;
    const content = [{ type: 'text' as const, text }];
    if (to !== effect.state) await moveEffect(tx, effect.id, effect.state, to, { result: { content }, isError: true });
    const told = resultEvent(effect, 'end', { content, isError: true });
    await appendEvents(tx, end.sessionId, [
      effect.kind === 'custom' ? { ...told, type: 'agent.custom_tool_cancelled' } : told,
    ]);
  }
}

/** A call that never started is denied; one that did and whose end nobody saw stays `unknown`: that is the truth. */
function closingState(effect: EffectRow): EffectState {
  if (effect.state === 'started' || effect.state === 'unknown') return effect.idempotent ? 'failed' : 'unknown';
  return 'denied';
}

async function appendError(tx: Queryable, end: TurnEnd): Promise<void> {
  await appendEvents(tx, end.sessionId, [
    {
      type: 'session.error',
      dedupeKey: `turn-error/${end.turn}`,
      payload: { error: { type: 'unknown_error', message: end.reason, retry_status: { type: 'exhausted' } } },
    },
  ]);
}
