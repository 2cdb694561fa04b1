import type { ApprovalResource } from '../../contracts/approvals.ts';
import type { ApprovalRow } from '../../db/queries/approvals.ts';
import { isoOrNull } from './times.ts';

export function renderApproval(row: ApprovalRow): ApprovalResource {
  return {
    id: row.id,
    type: 'approval',
    session_id: row.sessionId,
    tool_use_id: row.effectId,
    kind: row.kind,
    state: row.state,
    shown: { ...row.shown },
    digest: row.digest,
    policy_version: row.policyVersion,
    decision: row.decision,
    edited_input: row.editedInput,
    message: row.message,
    decided_by: row.decidedBy,
    decided_at: isoOrNull(row.decidedAt),
    expires_at: row.expiresAt.toISOString(),
    consumed_at: isoOrNull(row.consumedAt),
    created_at: row.createdAt.toISOString(),
  };
}
