import {
  ActivityCancellationType,
  ApplicationFailure,
  CancellationScope,
  condition,
  getExternalWorkflowHandle,
  isCancellation,
  proxyActivities,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import { LIMITS } from '../../contracts/limits.ts';
import type { DeploymentActivities, RunEnd } from '../activity-types.ts';
import { sessionWorkflowId } from '../ids.ts';
import type { DeploymentRunArgs, TurnEnded } from '../messages.ts';
import { interrupt, turnEnded } from '../messages.ts';

/**
 * Short database and Temporal work, idempotent on the workflow id: tried until both are back, about 55 hours of attempts.
 * A cancellation waits for what has begun, so that a run that was just made is known and can be ended.
 */
const activities = proxyActivities<DeploymentActivities>({
  startToCloseTimeout: 15_000,
  scheduleToCloseTimeout: LIMITS.sessionWallClockMs,
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: { initialInterval: 200, backoffCoefficient: 2, maximumInterval: 10_000, maximumAttempts: 20_000 },
});

/** One firing of a deployment: makes a session, waits for its first turn, fails when that turn failed. */
export async function deploymentRun(args: DeploymentRunArgs): Promise<void> {
  let ended: TurnEnded | undefined;
  setHandler(turnEnded, (message) => {
    ended ??= message;
  });
  const info = workflowInfo();
  const run =
    args.runId !== undefined && args.sessionId !== undefined
      ? { runId: args.runId, sessionId: args.sessionId }
      : await activities.createScheduledRun({
          deploymentId: args.deploymentId,
          workflowId: info.workflowId,
          scheduledAt: scheduledAt(info.workflowId, info.startTime),
        });
  if (run === null) return;
  let stopReason: RunEnd;
  let broken: unknown;
  try {
    await activities.startSession({ sessionId: run.sessionId, notify: info.workflowId });
    const inTime = await condition(() => ended !== undefined, LIMITS.sessionWallClockMs);
    stopReason = inTime ? (ended?.stopReason ?? 'terminated') : 'turn_timeout';
  } catch (error) {
    broken = error;
    stopReason = isCancellation(error) ? 'cancelled' : 'not_started';
  }
  // However it ends, its row says so.
  const { ok } = await CancellationScope.nonCancellable(async () => {
    const hasSession = stopReason !== 'cancelled' || (await interruptSession(run.sessionId));
    return activities.endRun({ runId: run.runId, stopReason, ...(hasSession ? {} : { unbegun: run.sessionId }) });
  });
  if (broken !== undefined) throw broken;
  if (!ok) throw ApplicationFailure.nonRetryable(`the turn ended with ${stopReason}`, 'turn_failed');
}

/**
 * Who cancels a run wants its work to stop; the session stays, and can be looked at and talked to. False when it has no
 * workflow.
 */
async function interruptSession(sessionId: string): Promise<boolean> {
  try {
    await getExternalWorkflowHandle(sessionWorkflowId(sessionId)).signal(interrupt, {});
    return true;
  } catch {
    return false;
  }
}

/** The server appends the nominal time of the firing to a scheduled workflow's id. */
function scheduledAt(workflowId: string, startTime: Date): string {
  const match = /(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$/.exec(workflowId);
  return match?.[1] ?? startTime.toISOString();
}
