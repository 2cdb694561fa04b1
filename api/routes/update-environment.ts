import { environment, environmentPath, environmentUpdate } from '../../contracts/environments.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { getEnvironment, updateEnvironment as saveEnvironment } from '../../db/queries/environments.ts';
import { patchMetadata, patchText } from '../definitions.ts';
import { endpoint } from '../endpoint.ts';
import { resolveEnvironment } from '../environment-config.ts';
import { renderEnvironment } from '../render/environments.ts';

export const updateEnvironment = endpoint({
  method: 'post',
  path: '/v1/environments/{environment_id}',
  tag: 'Environments',
  summary: 'Edit an environment; sessions keep what they started with',
  params: environmentPath,
  body: environmentUpdate,
  response: environment,
  async handle({ db, principal }, { params, body }) {
    const before = await getEnvironment(db, principal.teamId, params.environment_id, { lock: true });
    if (before.archivedAt !== null) throw new LonghaulError('archived', `environment ${before.id} is archived`);
    if (body.config !== undefined && body.config !== null && body.config.type !== before.config.type) {
      throw new LonghaulError('invalid_request', 'the type of an environment is fixed', { field: 'config.type' });
    }
    const row = await saveEnvironment(db, before.id, {
      name: body.name ?? before.name,
      description: patchText(before.description, body.description),
      config: body.config === undefined || body.config === null ? before.config : resolveEnvironment(body.config),
      metadata: patchMetadata(before.metadata, body.metadata),
    });
    return renderEnvironment(row);
  },
});
