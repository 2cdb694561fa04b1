import { deployment, deploymentPath } from '../../contracts/deployments.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { archiveDeployment as archive, getDeployment } from '../../db/queries/deployments.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { renderOneDeployment } from '../render/deployments.ts';

export const archiveDeployment = endpoint({
  method: 'post',
  path: '/v1/deployments/{deployment_id}/archive',
  tag: 'Deployments',
  summary: 'Archive a deployment: it never runs again',
  params: deploymentPath,
  response: deployment,
  async handle({ db, principal, services, afterCommit }, { params }) {
    const before = await getDeployment(db, principal.teamId, params.deployment_id, { lock: true });
    if (before.archivedAt !== null) return renderOneDeployment(db, before);
    const row = await archive(db, before.id);
    await insertAudit(db, {
      teamId: row.teamId,
      actor: actorOf(principal),
      action: 'deployment.archive',
      resource: row.id,
    });
    afterCommit(() => services.schedules.sync(row.id));
    return renderOneDeployment(db, row);
  },
});
