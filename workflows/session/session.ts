import {
  ActivityFailure,
  allHandlersFinished,
  CancellationScope,
  condition,
  getExternalWorkflowHandle,
  makeContinueAsNewFunc,
  setHandler,
} from '@temporalio/workflow';
import { LIMITS } from '../../contracts/limits.ts';
import type { StopReasonType } from '../../contracts/states.ts';
import type { SessionArgs } from '../messages.ts';
import { approve, interrupt, peek, stop, submit, terminate, toolCall, turnEnded } from '../messages.ts';
import type { SessionContext } from './context.ts';
import { sessionContext } from './context.ts';
import { closing, housekeeping, records } from './proxies.ts';
import { SessionState } from './state.ts';
import { historyIsLong } from './history.ts';
import { runTurn } from './turn.ts';

/** One durable conversation: takes inputs, runs turns, waits for people, ends once. */
export async function session(args: SessionArgs): Promise<void> {
  const state = new SessionState(args, Date.now());
  const context = sessionContext(args, state);
  let turnScope: CancellationScope | undefined;
  listen(state, args.harness !== undefined, () => turnScope?.cancel());

  // A turn that is open when the session must end is still brought to its own end first.
  while (!state.isClosing() || state.open !== undefined) {
    context.show([]);
    const work = await waitForWork(context);
    if (work === 'continue_as_new') return cutHistory(context);
    if (state.isClosing() && state.open === undefined) break;
    turnScope = new CancellationScope();
    state.beginTurn(Date.now());
    if (state.interruptRequested || state.isClosing()) turnScope.cancel();
    context.show([]);
    const end = await runTurn(context, turnScope);
    turnScope = undefined;
    if (end.kind === 'continue_as_new') return cutHistory(context);
    await reportFirstTurn(context, end.stopReason);
  }

  await CancellationScope.nonCancellable(async () => {
    const reason = state.terminateReason ?? 'session limit reached';
    await untilGivenUp(closing.closeSession({ sessionId: args.sessionId, reason }));
    context.show([]);
    await reportFirstTurn(context, 'terminated');
    await condition(allHandlersFinished);
  });
}

function listen(state: SessionState, isHarness: boolean, cancelTurn: () => void): void {
  setHandler(
    submit,
    (input) => {
      state.accept(input);
      return { queued: state.queue.length };
    },
    {
      validator: (input) => {
        const refusal = state.refusal(input);
        if (refusal !== undefined) throw new Error(refusal);
      },
    },
  );
  setHandler(toolCall, ({ callId }) => state.calls.take(callId), {
    validator: (_call) => {
      if (state.open === undefined || !isHarness) throw new Error('no_turn');
    },
  });
  setHandler(approve, (signal) => state.decide(signal));
  setHandler(interrupt, ({ eventId }) => {
    state.interrupt(eventId);
    if (state.interruptRequested) cancelTurn();
  });
  setHandler(stop, ({ eventId }) => state.stop(eventId));
  setHandler(terminate, ({ reason }) => {
    state.terminate(reason);
    cancelTurn();
  });
  setHandler(peek, () => state.peek());
}

/** Idle until there is something to do; pauses the sandbox after a while and ends the session at its limits. */
async function waitForWork(context: SessionContext): Promise<'work' | 'continue_as_new'> {
  const { state, args } = context;
  for (;;) {
    await closeControls(context);
    if (historyIsLong() && !state.isClosing()) return 'continue_as_new';
    if (state.open !== undefined || state.isClosing()) return 'work';
    const ageLeftMs = state.startedAtMs + args.limits.wallClockMs - Date.now();
    const idleLeftMs = state.lastActiveMs + args.limits.idleMs - Date.now();
    if (ageLeftMs > 0 && state.hasWork()) return 'work';
    const leftMs = Math.min(ageLeftMs, idleLeftMs);
    if (leftMs <= 0) {
      state.terminateReason = ageLeftMs <= 0 ? 'the session reached its age limit' : 'the session was idle too long';
      return 'work';
    }
    const nextMs = state.sandboxPaused ? leftMs : Math.min(leftMs, LIMITS.sandboxIdlePauseMs);
    const woken = await condition(() => state.hasWork() || state.controls.length > 0, nextMs);
    if (!woken && !state.sandboxPaused && nextMs < leftMs) {
      await untilGivenUp(housekeeping.pauseSandbox({ sessionId: args.sessionId }));
      state.sandboxPaused = true;
    }
  }
}

/** Interrupts and stops have been applied, or found nothing to act on. */
async function closeControls({ state, args }: SessionContext): Promise<void> {
  const eventIds = state.takeControls();
  if (eventIds.length > 0) await records.closeInputs({ sessionId: args.sessionId, eventIds, reason: 'applied' });
}

/** What housekeeping cannot do is the reaper's; it is no reason for the session to fail. */
async function untilGivenUp(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof ActivityFailure)) throw error;
  }
}

/** The next run may be taken by a newer worker; agents and prompts are versions in Postgres, so it reads the same. */
async function cutHistory(context: SessionContext): Promise<void> {
  const { state, args } = context;
  // What a long turn has heard would else be carried along, however much it is.
  while (state.controls.length > 0) await closeControls(context);
  await condition(allHandlersFinished);
  const next = makeContinueAsNewFunc<typeof session>({ initialVersioningBehavior: 'AUTO_UPGRADE' });
  await next({ ...args, inputs: [], carry: state.toCarry() });
}

/** Tells the deployment run that waits for this session; a run that is gone is no reason to fail. */
async function reportFirstTurn(
  { state, args }: SessionContext,
  stopReason: StopReasonType | 'terminated',
): Promise<void> {
  if (args.notify === undefined || state.firstTurnReported) return;
  state.firstTurnReported = true;
  try {
    await getExternalWorkflowHandle(args.notify).signal(turnEnded, { sessionId: args.sessionId, stopReason });
  } catch {
    // The run was cancelled or deleted: its record says so itself.
  }
}
