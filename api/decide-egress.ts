import type { approvalDecide } from '../contracts/approvals.ts';
import { LIMITS } from '../contracts/limits.ts';
import type { Queryable } from '../db/pool.ts';
import { requireRow } from '../db/pool.ts';
import type { ApprovalRow } from '../db/queries/approvals.ts';
import { decideApproval, getApproval } from '../db/queries/approvals.ts';
import { grantEgress } from '../db/queries/egress-approvals.ts';
import { getSession } from '../db/queries/sessions.ts';
import type { z } from 'zod';
import { requireOpen } from './accept-events.ts';

/**
 * Answers a question about the network. No turn waits for it: the broker reads the grant, and a request that is held or
 * repeated goes through.
 */
export async function decideEgress(
  db: Queryable,
  found: ApprovalRow,
  body: z.output<typeof approvalDecide>,
  actor: string,
): Promise<ApprovalRow> {
  const session = await getSession(db, found.teamId, found.sessionId, { lock: true });
  if (found.state === 'pending') requireOpen(session);
  const { outcome, approval } = await decideApproval(db, {
    approvalId: found.id,
    decision: body.decision,
    decidedBy: actor,
    message: body.message ?? undefined,
    editedInput: body.input ?? undefined,
  });
  if (outcome === 'decided') await grantEgress(db, approval, LIMITS.egressGrantMs);
  return requireRow(await getApproval(db, found.id), `approval ${found.id}`);
}
