import { ApplicationFailure, condition, proxyActivities, setHandler, workflowInfo } from '@temporalio/workflow';
import { LIMITS } from '../../contracts/limits.ts';
import type { DeploymentActivities } from '../activity-types.ts';
import type { DeploymentRunArgs, TurnEnded } from '../messages.ts';
import { turnEnded } from '../messages.ts';

/** Short database and Temporal work, idempotent on the workflow id: tried until both are back. */
const activities = proxyActivities<DeploymentActivities>({
  startToCloseTimeout: 15_000,
  scheduleToCloseTimeout: 24 * 3_600_000,
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
  await activities.startSession({ sessionId: run.sessionId, notify: info.workflowId });
  const inTime = await condition(() => ended !== undefined, LIMITS.sessionWallClockMs);
  const stopReason = inTime ? (ended?.stopReason ?? 'terminated') : 'turn_timeout';
  const { ok } = await activities.endRun({ runId: run.runId, stopReason });
  if (!ok) throw ApplicationFailure.nonRetryable(`the turn ended with ${stopReason}`, 'turn_failed');
}

/** The server appends the nominal time of the firing to a scheduled workflow's id. */
function scheduledAt(workflowId: string, startTime: Date): string {
  const match = /(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$/.exec(workflowId);
  return match?.[1] ?? startTime.toISOString();
}
