import type {
  DeploymentActivities,
  HarnessReportActivities,
  MaintenanceActivities,
  SessionActivities,
} from '../workflows/activity-types.ts';
import { expireCustomTool, settleApproval } from './approvals/settle.ts';
import { deploymentActivities } from './deployments/runs.ts';
import type { ActivityDeps } from './deps.ts';
import { runEffect } from './effects/run.ts';
import { planCall } from './harness/calls.ts';
import { reportHarnesses } from './harness/report.ts';
import { harnessTurn, wishAttempt } from './harness/turn.ts';
import { maintenanceActivities } from './maintenance/maintenance.ts';
import { SessionKeys } from './model/session-keys.ts';
import { modelStep } from './model/step.ts';
import { prepareOrGiveUp } from './sandbox/prepare-activity.ts';
import { closeSession, pauseSandbox } from './sessions/close-session.ts';
import { closeInputs, endTurn } from './sessions/end-turn.ts';
import { pauseTurn } from './sessions/pause-turn.ts';

/** Every activity, bound to its dependencies. */
export function createActivities(
  deps: ActivityDeps,
): SessionActivities & DeploymentActivities & MaintenanceActivities & HarnessReportActivities {
  const keys = new SessionKeys(deps.pool);
  return {
    modelStep: (args) => modelStep(deps, keys, args),
    runEffect: (args) => runEffect(deps, args),
    settleApproval: (args) => settleApproval(deps, args),
    expireCustomTool: (args) => expireCustomTool(deps, args),
    pauseTurn: (args) => pauseTurn(deps, args),
    harnessTurn: (args) => harnessTurn(deps, args),
    planCall: (args) => planCall(deps, args),
    wishAttempt: (args) => wishAttempt(deps, args),
    endTurn: (args) => endTurn(deps, keys, args),
    closeInputs: (args) => closeInputs(deps, args),
    prepareSandbox: (args) => prepareOrGiveUp(deps, args),
    pauseSandbox: (args) => pauseSandbox(deps, args),
    closeSession: (args) => closeSession(deps, keys, args),
    ...deploymentActivities(deps),
    ...maintenanceActivities(deps),
    reportHarnesses: () => reportHarnesses(deps),
  };
}
