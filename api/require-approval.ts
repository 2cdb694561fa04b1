import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import type { ApprovalRow } from '../db/queries/approvals.ts';
import { getApproval } from '../db/queries/approvals.ts';

/** An approval of the caller's team. */
export async function requireApproval(db: Queryable, teamId: string, id: string): Promise<ApprovalRow> {
  const row = await getApproval(db, id);
  if (row?.teamId !== teamId) throw new LonghaulError('not_found', `approval ${id} does not exist`);
  return row;
}
