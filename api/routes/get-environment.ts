import { environment, environmentPath } from '../../contracts/environments.ts';
import { getEnvironment as readEnvironment } from '../../db/queries/environments.ts';
import { endpoint } from '../endpoint.ts';
import { renderEnvironment } from '../render/environments.ts';

export const getEnvironment = endpoint({
  method: 'get',
  path: '/v1/environments/{environment_id}',
  tag: 'Environments',
  summary: 'Get an environment',
  params: environmentPath,
  response: environment,
  async handle({ db, principal }, { params }) {
    return renderEnvironment(await readEnvironment(db, principal.teamId, params.environment_id));
  },
});
