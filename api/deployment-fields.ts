import type { DeploymentCreate } from '../contracts/deployments.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import { getEnvironment } from '../db/queries/environments.ts';
import { requireAgent } from './agent-reference.ts';

/** Id of a live agent and the pinned version: a plain id pins the newest version, as Managed Agents does. */
export async function resolveDeployedAgent(
  db: Queryable,
  teamId: string,
  param: DeploymentCreate['agent'],
): Promise<{ agentId: string; agentVersion: number; model: string }> {
  const agent = await requireAgent(db, teamId, typeof param === 'string' ? { id: param } : param);
  return { agentId: agent.id, agentVersion: agent.version, model: agent.definition.model.id };
}

/** Id of an environment that can run sessions. */
export async function requireRunnableEnvironment(db: Queryable, teamId: string, id: string) {
  const field = 'environment_id';
  const row = await getEnvironment(db, teamId, id);
  if (row.archivedAt !== null) throw new LonghaulError('archived', `environment ${row.id} is archived`, { field });
  if (row.config.type === 'self_hosted') {
    throw new LonghaulError('invalid_request', 'self_hosted environments cannot run sessions yet', { field });
  }
  return row;
}
