import { deployment, deploymentListQuery } from '../../contracts/deployments.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listDeployments as readDeployments } from '../../db/queries/deployments.ts';
import { endpoint } from '../endpoint.ts';
import { createdRange, pageRequest } from '../paging.ts';
import { renderDeployments } from '../render/deployments.ts';

export const listDeployments = endpoint({
  method: 'get',
  path: '/v1/deployments',
  tag: 'Deployments',
  summary: 'List deployments, newest first',
  query: deploymentListQuery,
  response: pageOf(deployment),
  async handle({ db, principal }, { query }) {
    const where = {
      teamId: principal.teamId,
      agentId: query.agent_id,
      status: query.status,
      includeArchived: query.include_archived ?? false,
      ...createdRange(query),
    };
    const page = await readDeployments(db, where, pageRequest(query));
    return { data: await renderDeployments(db, page.data), next_page: page.nextPage };
  },
});
