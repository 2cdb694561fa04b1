import { environment, environmentPath } from '../../contracts/environments.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { archiveEnvironment as archive } from '../../db/queries/environments.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { renderEnvironment } from '../render/environments.ts';

export const archiveEnvironment = endpoint({
  method: 'post',
  path: '/v1/environments/{environment_id}/archive',
  tag: 'Environments',
  summary: 'Archive an environment: no new sessions',
  params: environmentPath,
  response: environment,
  async handle({ db, principal }, { params }) {
    const row = await archive(db, principal.teamId, params.environment_id);
    await insertAudit(db, {
      teamId: row.teamId,
      actor: actorOf(principal),
      action: 'environment.archive',
      resource: row.id,
    });
    return renderEnvironment(row);
  },
});
