import { environment, environmentCreate } from '../../contracts/environments.ts';
import { insertEnvironment } from '../../db/queries/environments.ts';
import { endpoint } from '../endpoint.ts';
import { resolveEnvironment } from '../environment-config.ts';
import { renderEnvironment } from '../render/environments.ts';

export const createEnvironment = endpoint({
  method: 'post',
  path: '/v1/environments',
  tag: 'Environments',
  summary: 'Create an environment: the template of sandboxes',
  body: environmentCreate,
  response: environment,
  async handle({ db, principal }, { body }) {
    const row = await insertEnvironment(db, principal.teamId, {
      name: body.name,
      description: body.description ?? null,
      config: resolveEnvironment(body.config),
      metadata: body.metadata ?? {},
    });
    return renderEnvironment(row);
  },
});
