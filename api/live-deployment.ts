import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import type { DeploymentRow } from '../db/queries/deployments.ts';
import { getDeployment } from '../db/queries/deployments.ts';

/** A deployment that may change, locked. */
export async function requireLiveDeployment(tx: Queryable, teamId: string, id: string): Promise<DeploymentRow> {
  const row = await getDeployment(tx, teamId, id, { lock: true });
  if (row.archivedAt !== null) throw new LonghaulError('archived', `deployment ${row.id} is archived`);
  return row;
}
