import { deploymentPath, deploymentRun } from '../../contracts/deployments.ts';
import { newId } from '../../contracts/ids.ts';
import { requireRow } from '../../db/pool.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { getRun } from '../../db/queries/deployment-runs.ts';
import { createDeploymentSession } from '../../db/queries/deployments.ts';
import { manualRunWorkflowId } from '../../workflows/ids.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedCalls } from '../key-changes.ts';
import { requireLiveDeployment } from '../live-deployment.ts';
import { renderRun } from '../render/deployments.ts';

export const runDeployment = endpoint({
  method: 'post',
  path: '/v1/deployments/{deployment_id}/run',
  tag: 'Deployments',
  summary: 'Run a deployment now, whatever its schedule',
  params: deploymentPath,
  response: deploymentRun,
  async handle({ db, principal, services, afterCommit }, { params }) {
    requireUnlimitedCalls(principal);
    const deployment = await requireLiveDeployment(db, principal.teamId, params.deployment_id);
    const runId = newId('deploymentRun');
    const made = await createDeploymentSession(db, {
      deploymentId: deployment.id,
      runId,
      workflowId: manualRunWorkflowId(deployment.id, runId),
      trigger: { type: 'manual' },
    });
    await insertAudit(db, {
      teamId: deployment.teamId,
      actor: actorOf(principal),
      action: 'deployment.run',
      resource: deployment.id,
      details: { run_id: runId },
    });
    const { sessionId } = requireRow(made ?? undefined, `deployment ${deployment.id}`);
    // Without a session the run has failed and paused its deployment: the schedule must show it.
    afterCommit(() =>
      sessionId === null ? services.schedules.sync(deployment.id) : services.delivery.deliver(sessionId),
    );
    return renderRun(await getRun(db, deployment.teamId, runId));
  },
});
