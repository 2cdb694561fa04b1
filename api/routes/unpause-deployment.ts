import { deployment, deploymentPath } from '../../contracts/deployments.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { setDeploymentStatus } from '../../db/queries/deployments.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedCalls } from '../key-changes.ts';
import { requireLiveDeployment } from '../live-deployment.ts';
import { renderOneDeployment } from '../render/deployments.ts';

export const unpauseDeployment = endpoint({
  method: 'post',
  path: '/v1/deployments/{deployment_id}/unpause',
  tag: 'Deployments',
  summary: 'Resume the schedule of a deployment',
  params: deploymentPath,
  response: deployment,
  async handle({ db, principal, services, afterCommit }, { params }) {
    requireUnlimitedCalls(principal);
    const before = await requireLiveDeployment(db, principal.teamId, params.deployment_id);
    if (before.status === 'active') return renderOneDeployment(db, before);
    const row = await setDeploymentStatus(db, before.id, 'active', null);
    await insertAudit(db, {
      teamId: row.teamId,
      actor: actorOf(principal),
      action: 'deployment.unpause',
      resource: row.id,
    });
    afterCommit(() => services.schedules.sync(row.id));
    return renderOneDeployment(db, row);
  },
});
