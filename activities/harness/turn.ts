import { setTimeout as delay } from 'node:timers/promises';
import { Context } from '@temporalio/activity';
import type { HarnessName } from '../../contracts/harnesses.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import { listOrphanedCalls, saveHarnessState, setWish } from '../../db/queries/harness-sessions.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import type { HarnessTurnArgs, HarnessTurnResult, WishArgs } from '../../workflows/harness-types.ts';
import { collectOutputsOf } from '../artifacts/collect.ts';
import { asFailure, cancelledByWorkflow, withHeartbeat } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { mcpListings } from '../mcp/listing.ts';
import type { Lease } from '../sandbox/lease.ts';
import { leaseSandbox } from '../sandbox/lease.ts';
import { whileRenewed } from '../sandbox/renew.ts';
import { continuationOf } from './continuation.ts';
import { turnHost } from './host.ts';
import { beginLife } from './lost-calls.ts';
import type { OpenedTurn } from './open.ts';
import { messageIdOf, noteTurnHere, openHarness, openHarnessTurn } from './open.ts';
import { endHarnessTurn, onFailure, recordedEnd } from './outcome.ts';
import type { HarnessDriver, HarnessHandle, TurnOutcome, TurnSpec } from './port.ts';
import { EventSink } from './sink.ts';
import { harnessSpec } from './spec.ts';
import { Watchdog } from './watchdog.ts';

const ORPHANS_TOLD = 50;
const EXPORT_MS = 30_000;
/** A driver that was told to end its turn and does not is not waited for any longer. */
const LET_GO_MS = 20_000;

/** One attempt of a harness at its turn; what an attempt before it left running is found again. */
export async function harnessTurn(deps: ActivityDeps, args: HarnessTurnArgs): Promise<HarnessTurnResult> {
  const shown: Record<string, unknown> = { turn: args.turn, attempt: args.attempt };
  return withHeartbeat(
    async (signal) => {
      const session = await loadSessionForTurn(deps.pool, args.sessionId);
      const opened = await openHarnessTurn(deps, session, args);
      if (opened === undefined) return recordedEnd(deps, args);
      const lease = await placeOf(deps, session, signal);
      if (lease?.kind === 'unprepared') return { kind: 'unprepared' };
      if (lease?.kind === 'failed') {
        const end = { state: 'failed', stopReason: 'retries_exhausted', reason: lease.message } as const;
        return endHarnessTurn(deps, args, end);
      }
      const attempt = new Attempt(deps, session, args, opened);
      const run = (): Promise<HarnessTurnResult> => attempt.run(lease?.lease, signal, shown);
      return lease === undefined ? run() : whileRenewed(deps, lease.lease, run);
    },
    () => shown,
  );
}

/** The sandbox of a harness that runs in it. */
async function placeOf(deps: ActivityDeps, session: SessionForTurn, signal: AbortSignal) {
  return session.agent.placement === 'sandbox' ? leaseSandbox(deps, session, signal) : undefined;
}

class Attempt {
  private readonly deps: ActivityDeps;
  private readonly session: SessionForTurn;
  private readonly args: HarnessTurnArgs;
  private readonly opened: OpenedTurn;
  private readonly driver: HarnessDriver;

  constructor(deps: ActivityDeps, session: SessionForTurn, args: HarnessTurnArgs, opened: OpenedTurn) {
    this.deps = deps;
    this.session = session;
    this.args = args;
    this.opened = opened;
    this.driver = deps.harness.driver(session.agent.harness as HarnessName);
  }

  async run(lease: Lease | undefined, signal: AbortSignal, shown: Record<string, unknown>): Promise<HarnessTurnResult> {
    const { deps, session, args, opened, driver } = this;
    let handle: HarnessHandle;
    // What its MCP endpoints show; a harness asks them as soon as it is open.
    await mcpListings(deps, session, { isTurnStart: true }, signal);
    try {
      handle = await openHarness(deps, driver, await harnessSpec(deps, session, lease), opened, signal);
    } catch (error) {
      if (signal.aborted || !(error instanceof LonghaulError)) throw error;
      const { message, retryable } = error;
      return onFailure(deps, args, { kind: 'failed', fault: 'harness_crash', retryable, httpStatus: null, message });
    }
    Object.assign(shown, { harnessSessionId: handle.harnessSessionId, attached: handle.isAttachedToRunning });
    if (!opened.isFirst && !handle.isAttachedToRunning) {
      const callIds = await beginLife(deps, session, args.turn);
      if (callIds.length > 0) return { kind: 'lost', callIds };
    }
    const outcome = await this.runTurn(handle, signal);
    return this.resultOf(outcome, handle, signal);
  }

  /** Runs the driver under the watchdog; resolves when the harness has let go, or is not waited for any more. */
  private async runTurn(handle: HarnessHandle, signal: AbortSignal): Promise<TurnOutcome> {
    const { deps, session, args, driver } = this;
    const { hotReattach } = await driver.capabilities();
    const { pool, logger } = deps;
    const { holdMs } = deps.harness;
    const watchdog = new Watchdog({ pool, logger, place: args, holdMs, canDetach: hotReattach });
    const over = new AbortController();
    const sink = new EventSink(deps, session, args.turn, over.signal);
    const host = turnHost({ deps, sessionId: session.id, sink, watchdog, signal: over.signal });
    // Only the workflow ends a turn; a worker that goes down leaves the harness as it runs.
    // Read here: who aborts has no context.
    const context = Context.current();
    const onAbort = (): void => (cancelledByWorkflow(context) ? watchdog.cancel : watchdog.detach).abort();
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      const spec = await this.turnSpec(handle);
      const running = driver.runTurn(handle, spec, host, watchdog.cancel.signal);
      const outcome = await Promise.race([running, this.lateEnd(watchdog, over.signal)]);
      await sink.close();
      return watchdog.verdict() ?? outcome;
    } finally {
      signal.removeEventListener('abort', onAbort);
      watchdog.end();
      over.abort();
    }
  }

  private async turnSpec({ isAttachedToRunning }: HarnessHandle): Promise<TurnSpec> {
    const { deps, session, args, opened } = this;
    const { turn, attempt } = args;
    // To one that runs nothing is said: it has all it waits for from the calls themselves.
    const goesOn = !opened.isFirst && !isAttachedToRunning;
    const calls = goesOn ? await listOrphanedCalls(deps.pool, session.id, turn, ORPHANS_TOLD) : [];
    return {
      turn,
      attempt,
      resumed: opened.isRepeated,
      messageId: messageIdOf(session.id, turn),
      model: opened.model,
      content: opened.content,
      continuation: goesOn ? continuationOf(calls) : null,
    };
  }

  /** Resolves some time after the driver was told to let go. */
  private async lateEnd(watchdog: Watchdog, over: AbortSignal): Promise<TurnOutcome> {
    const told = [watchdog.cancel, watchdog.park, watchdog.detach].map(
      ({ signal }) =>
        new Promise<void>((resolve) => {
          if (signal.aborted) resolve();
          else signal.addEventListener('abort', () => resolve(), { once: true });
        }),
    );
    await Promise.race(told);
    await delay(LET_GO_MS, undefined, { ref: false });
    if (!over.aborted)
      this.deps.logger.warn({ sessionId: this.session.id, turn: this.args.turn }, 'a harness does not let go');
    if (watchdog.cancel.signal.aborted) return { kind: 'cancelled' };
    return watchdog.park.signal.aborted ? { kind: 'parked' } : { kind: 'detached' };
  }

  private async resultOf(outcome: TurnOutcome, handle: HarnessHandle, signal: AbortSignal): Promise<HarnessTurnResult> {
    const { deps, session, args } = this;
    // The end is the workflow's to tell; an attempt that a worker lost goes on elsewhere.
    if (signal.aborted && outcome.kind !== 'completed') signal.throwIfAborted();
    switch (outcome.kind) {
      case 'completed': {
        await collectOutputsOf(deps, session, args.turn, signal);
        const { stopReason } = outcome;
        const end = { state: 'completed', stopReason, reason: stopReason } as const;
        const ended = await endHarnessTurn(deps, args, end);
        await this.keepState(handle);
        return ended;
      }
      case 'parked':
        return { kind: 'parked' };
      case 'detached':
        return { kind: 'detached' };
      case 'cancelled':
        return endHarnessTurn(deps, args, {
          state: 'interrupted',
          stopReason: 'interrupted',
          reason: 'the harness cancelled its turn',
        });
      case 'failed':
        return onFailure(deps, args, outcome);
      default:
        return assertNever(outcome);
    }
  }

  /** For another machine; a turn is over without it, too. */
  private async keepState(handle: HarnessHandle): Promise<void> {
    const { deps, session, args, driver } = this;
    try {
      if (session.agent.placement !== 'sandbox') await noteTurnHere(deps, session.id, args.turn);
      const state = await driver.exportState(handle, AbortSignal.timeout(EXPORT_MS));
      if (state === null) return;
      if (state.length > LIMITS.harnessStateBytes) throw new Error(`${state.length} bytes are too many`);
      await saveHarnessState(deps.pool, session.id, args.turn, state);
    } catch (error) {
      deps.logger.warn({ sessionId: session.id, turn: args.turn, err: error }, 'the state of a harness was not kept');
    }
  }
}

/** Asks the running attempt of a harness to let go. */
export async function wishAttempt(deps: ActivityDeps, args: WishArgs): Promise<void> {
  await asFailure(() => setWish(deps.pool, args, args.wish));
}
