import { ActivityCancellationType, proxyActivities } from '@temporalio/workflow';
import { LIMITS } from '../../contracts/limits.ts';
import type { SessionActivities } from '../activity-types.ts';

/*
 * Schedule-to-close also runs while no worker is there, so it must never be what ends work: a weekend without workers
 * would. It is only the server's last word, behind a bound that counts what really happened: the turn's own clock, the
 * outage that attempts have seen (activities/outage.ts), the deadline of a command, or the number of attempts.
 */

/** Beats come every second, so a dead worker is noticed within this time. */
const HEARTBEAT_TIMEOUT_MS = 5_000;
/** The workflow's clock ends the turn, and with it what runs in it, well before the server would. */
const BEHIND_THE_TURN_MS = 3_600_000;

/**
 * The model call. Retried for as long as the provider may be away (the activity counts that and ends the turn), because
 * a retry of the same step is answered from the gateway's record and never pays twice. Waits for cancellation so that an
 * interrupt has stopped the spending.
 */
export const modelCall = (turnTimeoutMs: number, summary: string): Pick<SessionActivities, 'modelStep'> =>
  proxyActivities<Pick<SessionActivities, 'modelStep'>>({
    summary,
    startToCloseTimeout: LIMITS.modelTotalMs + 60_000,
    scheduleToCloseTimeout: turnTimeoutMs + BEHIND_THE_TURN_MS,
    heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: 500, backoffCoefficient: 2, maximumInterval: 30_000, maximumAttempts: 1_000 },
  });

/**
 * A harness at its turn. An attempt after a worker's death finds the harness as it runs, or begins it anew from its own
 * record; faults are counted by the activity, which ends the turn. The turn's clock ends it before the server would. Waits for
 * cancellation so that no harness runs on when the end of the turn is told.
 */
export const harnessRun = (turnTimeoutMs: number, summary: string): Pick<SessionActivities, 'harnessTurn'> =>
  proxyActivities<Pick<SessionActivities, 'harnessTurn'>>({
    summary,
    startToCloseTimeout: turnTimeoutMs + BEHIND_THE_TURN_MS,
    scheduleToCloseTimeout: LIMITS.sessionWallClockMs,
    heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: 500, backoffCoefficient: 2, maximumInterval: 30_000, maximumAttempts: 1_000 },
  });

/**
 * One effect. Attempts may repeat because the ledger and the durable exec make a second attempt re-attach instead of
 * starting again. A command ends by its own deadline, which the sandbox keeps whether a worker is there or not; a sandbox
 * that is away is counted by the activity.
 */
export const effectRun = (
  turnTimeoutMs: number,
  timeoutMs: number,
  summary: string,
): Pick<SessionActivities, 'runEffect'> =>
  proxyActivities<Pick<SessionActivities, 'runEffect'>>({
    summary,
    startToCloseTimeout: timeoutMs + 60_000,
    scheduleToCloseTimeout: turnTimeoutMs + BEHIND_THE_TURN_MS,
    heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: 200, backoffCoefficient: 2, maximumInterval: 10_000, maximumAttempts: 1_000 },
  });

/**
 * Preparing a sandbox: packages, set-up, repositories. An attempt goes on where the last one was, because each step is a
 * durable command that is recorded when it is done. Each has its own deadline, in the sandbox; a provider that is away is
 * counted by the activity; the turn's clock ends it all.
 */
export const preparation = (turnTimeoutMs: number): Pick<SessionActivities, 'prepareSandbox'> =>
  proxyActivities<Pick<SessionActivities, 'prepareSandbox'>>({
    summary: 'prepare the sandbox',
    startToCloseTimeout: LIMITS.sandboxPrepareMs,
    scheduleToCloseTimeout: turnTimeoutMs + BEHIND_THE_TURN_MS,
    heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: 200, backoffCoefficient: 2, maximumInterval: 10_000, maximumAttempts: 1_000 },
  });

/**
 * Short database work: idempotent by compare-and-swap, so it is tried until Postgres is back. Bounded by its attempts:
 * about 55 hours of an outage that workers see. Behind them stands the age a session may reach.
 */
export const records = proxyActivities<
  Pick<
    SessionActivities,
    'settleApproval' | 'expireCustomTool' | 'pauseTurn' | 'endTurn' | 'closeInputs' | 'planCall' | 'wishAttempt'
  >
>({
  startToCloseTimeout: 10_000,
  scheduleToCloseTimeout: LIMITS.sessionWallClockMs,
  retry: { initialInterval: 100, backoffCoefficient: 2, maximumInterval: 10_000, maximumAttempts: 20_000 },
});

/** Taking the outputs has a limit of its own; what follows it must fit too. */
const WITH_OUTPUTS_MS = LIMITS.artifactsMs + 60_000;

/**
 * The end of a session: rows first, then its sandbox. Idempotent; about four hours of attempts, then the reaper destroys
 * the sandbox and the sweep ends the rows.
 */
export const closing = proxyActivities<Pick<SessionActivities, 'closeSession'>>({
  startToCloseTimeout: WITH_OUTPUTS_MS,
  scheduleToCloseTimeout: LIMITS.sessionWallClockMs,
  heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
  retry: { initialInterval: 500, backoffCoefficient: 2, maximumInterval: 30_000, maximumAttempts: 500 },
});

/** A courtesy that messages wait behind: given up soon, because the reaper pauses a sandbox whose lease ran out. */
export const housekeeping = proxyActivities<Pick<SessionActivities, 'pauseSandbox'>>({
  startToCloseTimeout: WITH_OUTPUTS_MS,
  scheduleToCloseTimeout: 300_000,
  heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
  retry: { initialInterval: 500, backoffCoefficient: 2, maximumInterval: 30_000, maximumAttempts: 5 },
});
