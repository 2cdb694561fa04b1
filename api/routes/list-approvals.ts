import { approval, approvalListQuery } from '../../contracts/approvals.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listApprovals as readApprovals } from '../../db/queries/approvals.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderApproval } from '../render/approvals.ts';

export const listApprovals = endpoint({
  method: 'get',
  path: '/v1/approvals',
  tag: 'Approvals',
  summary: 'List approvals across sessions: pending ones unless `state` says otherwise',
  query: approvalListQuery,
  response: pageOf(approval),
  async handle({ db, principal }, { query }) {
    const state = query.state ?? 'pending';
    const where = {
      teamId: principal.teamId,
      state: state === 'all' ? undefined : state,
      sessionId: query.session_id,
    };
    return renderPage(await readApprovals(db, where, pageRequest(query)), renderApproval);
  },
});
