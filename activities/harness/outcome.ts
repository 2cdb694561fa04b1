import type { StopReasonType } from '../../contracts/states.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import { withTransaction } from '../../db/pool.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { isInterrupted } from '../../db/queries/inputs.ts';
import { lockSession, setRescheduling } from '../../db/queries/session-status.ts';
import { writeTurnEnd } from '../../db/queries/turn-end.ts';
import { lockTurn, turnStop } from '../../db/queries/turns.ts';
import type { HarnessTurnArgs, HarnessTurnResult } from '../../workflows/harness-types.ts';
import type { ActivityDeps } from '../deps.ts';
import { inWords, noteOutage } from '../outage.ts';
import type { FaultClass, TurnOutcome } from './port.ts';

type Failure = Extract<TurnOutcome, { kind: 'failed' }>;

/** How a turn ends, with what is said of it. */
export interface HarnessEnd {
  state: 'completed' | 'failed' | 'interrupted';
  stopReason: StopReasonType;
  reason: string;
  error?: { type: string; code: string; message: string };
}

/** Ends the turn in one transaction, once; an interrupt that was asked for before comes first. */
export async function endHarnessTurn(
  deps: ActivityDeps,
  args: HarnessTurnArgs,
  end: HarnessEnd,
): Promise<HarnessTurnResult> {
  const { sessionId, turn, eventIds } = args;
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, sessionId);
    if ((await lockTurn(tx, sessionId, turn)) !== 'running') return;
    if (await isInterrupted(tx, sessionId, turn)) {
      const reason = 'interrupted by a client';
      return writeTurnEnd(tx, { sessionId, turn, eventIds, state: 'interrupted', stopReason: 'interrupted', reason });
    }
    if (end.error !== undefined) await appendEvents(tx, sessionId, [errorEvent(args, end.error, 'terminal')]);
    const { state, stopReason, reason } = end;
    await writeTurnEnd(tx, { sessionId, turn, eventIds, state, stopReason, reason });
  });
  return recordedEnd(deps, args);
}

/** What the record says of a turn that is over. */
export async function recordedEnd(deps: ActivityDeps, args: HarnessTurnArgs): Promise<HarnessTurnResult> {
  const stopReason = await turnStop(deps.pool, args.sessionId, args.turn);
  if (stopReason === undefined) throw new Error('the end of the turn is not recorded');
  return { kind: 'ended', stopReason };
}

/** What may pass is tried again by another attempt, and told once while it lasts; the rest ends the turn with its reason. */
export async function onFailure(
  deps: ActivityDeps,
  args: HarnessTurnArgs,
  failure: Failure,
): Promise<HarnessTurnResult> {
  const { sessionId, turn } = args;
  const error = errorOf(failure);
  deps.logger.warn({ sessionId, turn, fault: failure.fault, httpStatus: failure.httpStatus }, 'a harness failed');
  const crashes = args.crashes + (isOfHarness(failure.fault) ? 1 : 0);
  const awayMs = failure.retryable ? await noteOutage(deps.pool, sessionId, `harness/${turn}`) : 0;
  const passes = failure.retryable && crashes <= LIMITS.harnessCrashesPerTurn && awayMs < args.modelOutageMs;
  if (passes) {
    await withTransaction(deps.pool, async (tx) => {
      await lockSession(tx, sessionId);
      if ((await lockTurn(tx, sessionId, turn)) !== 'running') return;
      if (!isOfHarness(failure.fault)) await setRescheduling(tx, sessionId);
      await appendEvents(tx, sessionId, [errorEvent(args, error, 'retrying')]);
    });
    return { kind: 'again', delayMs: isOfHarness(failure.fault) ? 0 : backoffMs(args.attempt), crashes };
  }
  const after = awayMs > 0 ? ` (tried for ${inWords(awayMs)})` : '';
  return endHarnessTurn(deps, args, { ...endOf(failure), reason: `${error.code}: ${error.message}${after}`, error });
}

const MAX_BACKOFF_MS = 30_000;

function backoffMs(attempt: number): number {
  return Math.min(MAX_BACKOFF_MS, 1_000 * 2 ** Math.min(attempt, 5));
}

/** Its own trouble, not that of the model behind it: a new life of it may do better, but not for ever. */
function isOfHarness(fault: FaultClass): boolean {
  return fault === 'harness_crash' || fault === 'stalled';
}

function endOf({ fault }: Failure): Pick<HarnessEnd, 'state' | 'stopReason'> {
  switch (fault) {
    case 'budget':
      return { state: 'completed', stopReason: 'budget_reached' };
    case 'refusal':
      return { state: 'completed', stopReason: 'refusal' };
    case 'context':
      return { state: 'failed', stopReason: 'context_full' };
    case 'auth':
    case 'bad_request':
    case 'rate_limit':
    case 'overloaded':
    case 'harness_crash':
    case 'stalled':
      return { state: 'failed', stopReason: 'retries_exhausted' };
    default:
      return assertNever(fault);
  }
}

const MESSAGE_CHARS = 2_000;

/** As clients of the Managed Agents API know errors. */
function errorOf({ fault, message: said, httpStatus }: Failure): { type: string; code: string; message: string } {
  const message = (said === '' ? `the harness ended its turn: ${fault}` : said).slice(0, MESSAGE_CHARS);
  const code = `harness_${fault === 'harness_crash' ? 'crash' : fault}`;
  if (fault === 'rate_limit') return { type: 'model_rate_limited_error', message, code };
  if (fault === 'overloaded') return { type: 'model_overloaded_error', message, code };
  if (httpStatus !== null || fault === 'auth' || fault === 'bad_request' || fault === 'context') {
    return { type: 'model_request_failed_error', message, code };
  }
  return { type: 'unknown_error', message, code };
}

function errorEvent(
  { turn, attempt }: HarnessTurnArgs,
  error: { type: string; code: string; message: string },
  retry: 'retrying' | 'terminal',
) {
  const dedupeKey = retry === 'terminal' ? `harness-error/${turn}/final` : `harness-error/${turn}/${attempt}`;
  return { type: 'session.error', dedupeKey, payload: { error: { ...error, retry_status: { type: retry } } } };
}
