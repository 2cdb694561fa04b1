import { deploymentRun, deploymentRunListQuery } from '../../contracts/deployments.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listRuns } from '../../db/queries/deployment-runs.ts';
import { endpoint } from '../endpoint.ts';
import { createdRange, pageRequest, renderPage } from '../paging.ts';
import { renderRun } from '../render/deployments.ts';

export const listDeploymentRuns = endpoint({
  method: 'get',
  path: '/v1/deployment_runs',
  tag: 'Deployments',
  summary: 'List firings of deployments, newest first',
  query: deploymentRunListQuery,
  response: pageOf(deploymentRun),
  async handle({ db, principal }, { query }) {
    const where = {
      teamId: principal.teamId,
      deploymentId: query.deployment_id,
      hasError: query.has_error,
      triggerType: query.trigger_type,
      ...createdRange(query),
    };
    return renderPage(await listRuns(db, where, pageRequest(query)), renderRun);
  },
});
