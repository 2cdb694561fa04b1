import { CancellationScope, condition, sleep } from '@temporalio/workflow';
import { assertNever } from '../../contracts/states.ts';
import type { HarnessTurnResult } from '../harness-types.ts';
import type { HarnessProgress } from '../messages.ts';
import { CallPump } from './calls.ts';
import type { SessionContext } from './context.ts';
import { prepared } from './effects.ts';
import { historyIsLong } from './history.ts';
import type { LoopEnd } from './history.ts';
import { harnessRun, records } from './proxies.ts';

/**
 * The open turn of a harness: one long activity an attempt, its tool calls worked off beside it. While only people are waited
 * for, no activity runs.
 */
export async function harnessLoop(context: SessionContext): Promise<LoopEnd> {
  const { state } = context;
  const open = state.beginTurn(Date.now());
  open.harness ??= { attempt: 1, crashes: 0, pauses: 0 };
  const pump = new CallPump(context, open.turn, open.harness);
  const scope = new CancellationScope();
  try {
    return await scope.run(() => attempts(context, pump, open.harness as HarnessProgress));
  } finally {
    // What a harness left behind that has ended its turn.
    scope.cancel();
  }
}

async function attempts(context: SessionContext, pump: CallPump, progress: HarnessProgress): Promise<LoopEnd> {
  const { state } = context;
  for (;;) {
    if (progress.parked === true) await waitForCalls(context, pump);
    if (state.stopRequested) return { stopReason: 'interrupted', reason: 'stopped at a step boundary' };
    // A run that ends must leave no activity behind; what waits is carried by reference.
    if (historyIsLong() && pump.isResting()) return 'continue_as_new';
    const result = await attempt(context, pump, progress);
    if (result.kind === 'ended') return { recorded: result.stopReason };
    progress.parked = result.kind === 'parked' || result.kind === 'lost';
    if (result.kind !== 'unprepared') progress.attempt += 1;
    await between(context, pump, result);
  }
}

/** Runs the harness until it ends its turn or lets go of it. */
async function attempt(context: SessionContext, pump: CallPump, progress: HarnessProgress): Promise<HarnessTurnResult> {
  const { args, state } = context;
  const open = state.beginTurn(Date.now());
  const { attempt: number, crashes } = progress;
  const { harnessTurn } = harnessRun(args.limits.turnTimeoutMs, `turn ${open.turn} attempt ${number}`);
  const place = { sessionId: args.sessionId, turn: open.turn, attempt: number };
  const { eventIds } = open;
  const outageMs = args.limits.modelOutageMs;
  let isDone = false;
  const scope = new CancellationScope();
  return scope.run(async () => {
    const running = harnessTurn({ ...place, eventIds, crashes, modelOutageMs: outageMs }).finally(() => {
      isDone = true;
    });
    try {
      await Promise.all([running, pump.serve(() => isDone), tellWishes(context, place, () => isDone)]);
    } catch (error) {
      scope.cancel();
      // The turn must not be ended under a harness that still runs.
      await running.catch(() => undefined);
      throw error;
    }
    return running;
  });
}

/** A long history and a stop cannot wait until the harness has done all it wants. */
async function tellWishes(
  { state }: SessionContext,
  place: { sessionId: string; turn: number; attempt: number },
  isDone: () => boolean,
): Promise<void> {
  await condition(() => isDone() || state.stopRequested || historyIsLong());
  if (isDone()) return;
  await records.wishAttempt({ ...place, wish: state.stopRequested ? 'park' : 'detach' });
}

const CRASH_DELAY_MS = 1_000;

/** What is to be done before the next attempt. */
async function between(
  context: SessionContext,
  pump: CallPump,
  result: Exclude<HarnessTurnResult, { kind: 'ended' }>,
): Promise<void> {
  const { state } = context;
  switch (result.kind) {
    case 'lost':
      for (const callId of result.callIds) state.calls.take(callId);
      return;
    case 'parked':
      return;
    case 'detached':
      // The harness goes on without us; only a cut of the history has to wait for what runs.
      if (historyIsLong()) await pump.serve(() => pump.isResting());
      return;
    case 'unprepared':
      return prepared(context);
    case 'again':
      if (state.open?.harness !== undefined) state.open.harness.crashes = result.crashes;
      return sleep(Math.max(CRASH_DELAY_MS, result.delayMs)).then(() => undefined);
    default:
      return assertNever(result);
  }
}

/** Until every call has its answer, with no activity running but those of the calls themselves. */
async function waitForCalls({ state }: SessionContext, pump: CallPump): Promise<void> {
  await pump.serve(() => {
    if (state.calls.hasFresh()) return false;
    return state.calls.size === 0 || (pump.isResting() && (state.stopRequested || historyIsLong()));
  });
}
