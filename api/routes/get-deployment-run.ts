import { deploymentRun, deploymentRunPath } from '../../contracts/deployments.ts';
import { getRun } from '../../db/queries/deployment-runs.ts';
import { endpoint } from '../endpoint.ts';
import { renderRun } from '../render/deployments.ts';

export const getDeploymentRun = endpoint({
  method: 'get',
  path: '/v1/deployment_runs/{deployment_run_id}',
  tag: 'Deployments',
  summary: 'Get one firing of a deployment',
  params: deploymentRunPath,
  response: deploymentRun,
  async handle({ db, principal }, { params }) {
    return renderRun(await getRun(db, principal.teamId, params.deployment_run_id));
  },
});
