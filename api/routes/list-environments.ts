import { environment, environmentListQuery } from '../../contracts/environments.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listEnvironments as readEnvironments } from '../../db/queries/environments.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderEnvironment } from '../render/environments.ts';

export const listEnvironments = endpoint({
  method: 'get',
  path: '/v1/environments',
  tag: 'Environments',
  summary: 'List environments, newest first',
  query: environmentListQuery,
  response: pageOf(environment),
  async handle({ db, principal }, { query }) {
    const where = { teamId: principal.teamId, includeArchived: query.include_archived ?? false };
    return renderPage(await readEnvironments(db, where, pageRequest(query)), renderEnvironment);
  },
});
