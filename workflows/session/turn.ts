import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  condition,
  isCancellation,
  sleep,
} from '@temporalio/workflow';
import type { StopReasonType } from '../../contracts/states.ts';
import type { EndTurnArgs } from '../activity-types.ts';
import type { SessionContext } from './context.ts';
import { runStepEffects } from './effects.ts';
import { harnessLoop } from './harness-turn.ts';
import type { LoopEnd } from './history.ts';
import { historyIsLong } from './history.ts';
import { modelCall, records } from './proxies.ts';

type TurnEnd = { kind: 'ended'; stopReason: StopReasonType } | { kind: 'continue_as_new' };

/**
 * Runs the open turn to its one terminal state. However it ends (done, failed, interrupted, terminated), the terminal
 * event is written: the finalizer cannot be cancelled.
 */
export async function runTurn(context: SessionContext, scope: CancellationScope): Promise<TurnEnd> {
  const { state } = context;
  const { turn } = state.beginTurn(Date.now());
  const clock = new CancellationScope();
  void clock.run(() => watchClock(context, scope)).catch(ignoreCancellation);
  try {
    const loop = context.args.harness === undefined ? stepLoop : harnessLoop;
    const result = await scope.run(() => loop(context));
    if (result === 'continue_as_new') return { kind: 'continue_as_new' };
    if ('recorded' in result) {
      state.endTurn(Date.now());
      return { kind: 'ended', stopReason: result.recorded };
    }
    return await finish(context, { turn, state: 'interrupted', ...result });
  } catch (error) {
    // Under a cancelled scope the loss of an attempt (its worker died) ends the turn as the cancellation does.
    if (isCancellation(error) || (scope.consideredCancelled && error instanceof ActivityFailure)) {
      return finish(context, { turn, state: 'interrupted', ...whyCancelled(context) });
    }
    if (error instanceof ActivityFailure) {
      const reason = failureReason(error);
      return finish(context, { turn, state: 'failed', stopReason: 'retries_exhausted', reason });
    }
    // A defect in workflow code: fail the task, keep the session, let a fixed worker go on.
    throw error;
  } finally {
    clock.cancel();
  }
}

/** Ends the turn, or the session, at its time limit, also in the middle of a step. */
async function watchClock({ state, args }: SessionContext, turn: CancellationScope): Promise<void> {
  for (;;) {
    const now = Date.now();
    const ageLeftMs = state.startedAtMs + args.limits.wallClockMs - now;
    const turnLeftMs = args.limits.turnTimeoutMs - state.turnActiveMs(now);
    if (ageLeftMs <= 0) state.terminateReason ??= 'the session reached its age limit';
    else if (turnLeftMs <= 0) state.turnTimedOut = true;
    if (ageLeftMs <= 0 || turnLeftMs <= 0) return turn.cancel();
    // A clock that stands still while people are waited for needs no looks at it: each would grow the history.
    if (state.waitingSinceMs !== undefined) await condition(() => state.waitingSinceMs === undefined, ageLeftMs);
    else await sleep(Math.min(ageLeftMs, turnLeftMs));
  }
}

function ignoreCancellation(error: unknown): void {
  if (!isCancellation(error)) throw error;
}

function whyCancelled({ state }: SessionContext): { stopReason: StopReasonType; reason: string } {
  if (state.terminateReason !== undefined) return { stopReason: 'interrupted', reason: state.terminateReason };
  if (state.turnTimedOut) return { stopReason: 'turn_timeout', reason: 'the turn ran out of time' };
  return { stopReason: 'interrupted', reason: 'interrupted by a client' };
}

async function stepLoop(context: SessionContext): Promise<LoopEnd> {
  const { state, args } = context;
  const open = state.beginTurn(Date.now());
  for (;;) {
    const limit = limitReached(context, open.step);
    if (limit !== undefined) return limit;
    if (historyIsLong()) return 'continue_as_new';
    const at = { sessionId: args.sessionId, turn: open.turn, step: open.step };
    const { modelStep } = modelCall(args.limits.turnTimeoutMs, `turn ${open.turn} step ${open.step}`);
    const result = await modelStep({
      ...at,
      eventIds: open.eventIds,
      modelOutageMs: args.limits.modelOutageMs,
    });
    if (result.kind === 'ended') return { recorded: result.stopReason };
    await runStepEffects(context, at, result.effects);
    open.step += 1;
  }
}

function limitReached(
  { state, args }: SessionContext,
  step: number,
): { stopReason: StopReasonType; reason: string } | undefined {
  if (state.stopRequested) return { stopReason: 'interrupted', reason: 'stopped at a step boundary' };
  if (step >= args.limits.maxStepsPerTurn) {
    return { stopReason: 'max_steps', reason: `the turn reached its limit of ${args.limits.maxStepsPerTurn} steps` };
  }
  return undefined;
}

async function finish(context: SessionContext, end: Omit<EndTurnArgs, 'sessionId' | 'eventIds'>): Promise<TurnEnd> {
  const { state, args } = context;
  const eventIds = state.open?.eventIds ?? [];
  await CancellationScope.nonCancellable(() => records.endTurn({ sessionId: args.sessionId, eventIds, ...end }));
  state.endTurn(Date.now());
  return { kind: 'ended', stopReason: end.stopReason };
}

function failureReason(error: ActivityFailure): string {
  const cause = error.cause;
  const text =
    cause instanceof ApplicationFailure
      ? `${cause.type ?? 'error'}: ${cause.message}`
      : (cause?.message ?? error.message);
  return text.slice(0, 500);
}
