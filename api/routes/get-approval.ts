import { approval, approvalPath } from '../../contracts/approvals.ts';
import { endpoint } from '../endpoint.ts';
import { renderApproval } from '../render/approvals.ts';
import { requireApproval } from '../require-approval.ts';

export const getApproval = endpoint({
  method: 'get',
  path: '/v1/approvals/{approval_id}',
  tag: 'Approvals',
  summary: 'Get an approval',
  params: approvalPath,
  response: approval,
  async handle({ db, principal }, { params }) {
    return renderApproval(await requireApproval(db, principal.teamId, params.approval_id));
  },
});
