import { ActivityCancellationType, proxyActivities } from '@temporalio/workflow';
import { LIMITS } from '../../contracts/limits.ts';
import type { SessionActivities } from '../activity-types.ts';

/** Beats come every second, so a dead worker is noticed within this time. */
const HEARTBEAT_TIMEOUT_MS = 5_000;

/**
 * The model call. Retried for as long as the provider may be away, because a retry of the same step is answered from
 * the gateway's record and never pays twice. Waits for cancellation so that an interrupt has stopped the spending.
 */
export const modelCall = (modelOutageMs: number, summary: string): Pick<SessionActivities, 'modelStep'> =>
  proxyActivities<Pick<SessionActivities, 'modelStep'>>({
    summary,
    startToCloseTimeout: LIMITS.modelTotalMs + 60_000,
    scheduleToCloseTimeout: modelOutageMs,
    heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: 500, backoffCoefficient: 2, maximumInterval: 30_000, maximumAttempts: 1_000 },
  });

/**
 * One effect. Attempts may repeat because the ledger and the durable exec make a second attempt re-attach instead of
 * starting again; the bound is the tool's own time limit plus what the crashes in between may cost.
 */
export const effectRun = (timeoutMs: number, summary: string): Pick<SessionActivities, 'runEffect'> =>
  proxyActivities<Pick<SessionActivities, 'runEffect'>>({
    summary,
    startToCloseTimeout: timeoutMs + 60_000,
    scheduleToCloseTimeout: timeoutMs + 15 * 60_000,
    heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: 200, backoffCoefficient: 2, maximumInterval: 10_000, maximumAttempts: 1_000 },
  });

/**
 * Short database work: idempotent by compare-and-swap, so it is tried until Postgres is back. The outer bound is the
 * longest outage a session outlives.
 */
export const records = proxyActivities<
  Pick<SessionActivities, 'settleApproval' | 'expireCustomTool' | 'pauseTurn' | 'endTurn' | 'closeInputs'>
>({
  startToCloseTimeout: 10_000,
  scheduleToCloseTimeout: 24 * 3_600_000,
  retry: { initialInterval: 100, backoffCoefficient: 2, maximumInterval: 10_000, maximumAttempts: 20_000 },
});

/** Sandbox housekeeping: idempotent; the reaper repeats what is given up here. */
export const housekeeping = proxyActivities<Pick<SessionActivities, 'pauseSandbox' | 'closeSession'>>({
  startToCloseTimeout: 60_000,
  scheduleToCloseTimeout: 3_600_000,
  heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
  retry: { initialInterval: 500, backoffCoefficient: 2, maximumInterval: 30_000, maximumAttempts: 500 },
});
