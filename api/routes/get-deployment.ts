import { deployment, deploymentPath } from '../../contracts/deployments.ts';
import { getDeployment as readDeployment } from '../../db/queries/deployments.ts';
import { endpoint } from '../endpoint.ts';
import { renderDeployment, renderOneDeployment } from '../render/deployments.ts';

export const getDeployment = endpoint({
  method: 'get',
  path: '/v1/deployments/{deployment_id}',
  tag: 'Deployments',
  summary: 'Get a deployment with its last and next firings',
  params: deploymentPath,
  response: deployment,
  async handle({ db, principal, services }, { params }) {
    const row = await readDeployment(db, principal.teamId, params.deployment_id);
    const times = row.archivedAt === null ? await services.schedules.times(row) : undefined;
    return times === undefined ? renderOneDeployment(db, row) : renderDeployment(row, times);
  },
});
