import { environmentDeleted, environmentPath } from '../../contracts/environments.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { deleteEnvironment as remove, getEnvironment, isEnvironmentUsed } from '../../db/queries/environments.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';

export const deleteEnvironment = endpoint({
  method: 'delete',
  path: '/v1/environments/{environment_id}',
  tag: 'Environments',
  summary: 'Delete an environment that nothing refers to',
  params: environmentPath,
  response: environmentDeleted,
  async handle({ db, principal }, { params }) {
    const row = await getEnvironment(db, principal.teamId, params.environment_id, { lock: true });
    if (await isEnvironmentUsed(db, row.id)) {
      throw new LonghaulError('in_use', `sessions or deployments refer to environment ${row.id}`);
    }
    await remove(db, row.id);
    await insertAudit(db, {
      teamId: row.teamId,
      actor: actorOf(principal),
      action: 'environment.delete',
      resource: row.id,
    });
    return { id: row.id, type: 'environment_deleted' as const };
  },
});
