import { deployment, deploymentPath } from '../../contracts/deployments.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { setDeploymentStatus } from '../../db/queries/deployments.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireLiveDeployment } from '../live-deployment.ts';
import { renderOneDeployment } from '../render/deployments.ts';

export const pauseDeployment = endpoint({
  method: 'post',
  path: '/v1/deployments/{deployment_id}/pause',
  tag: 'Deployments',
  summary: 'Stop the schedule of a deployment; it can still be run by hand',
  params: deploymentPath,
  response: deployment,
  async handle({ db, principal, services, afterCommit }, { params }) {
    const before = await requireLiveDeployment(db, principal.teamId, params.deployment_id);
    if (before.status === 'paused') return renderOneDeployment(db, before);
    const row = await setDeploymentStatus(db, before.id, 'paused', { type: 'manual' });
    await insertAudit(db, {
      teamId: row.teamId,
      actor: actorOf(principal),
      action: 'deployment.pause',
      resource: row.id,
    });
    afterCommit(() => services.schedules.sync(row.id));
    return renderOneDeployment(db, row);
  },
});
