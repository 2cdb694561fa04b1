import { z } from 'zod';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { egressRequest, sandboxEgressListQuery } from '../../contracts/egress.ts';
import { pageOf } from '../../contracts/paging.ts';
import { hasEgressRequests, listEgressRequests } from '../../db/queries/egress-requests.ts';
import { endpoint } from '../endpoint.ts';
import { createdRange, pageRequest, renderPage } from '../paging.ts';
import { renderEgressRequest } from '../render/egress.ts';

export const listSandboxEgress = endpoint({
  method: 'get',
  path: '/v1/sandboxes/{sandbox_id}/egress',
  tag: 'Egress',
  summary: 'What one sandbox asked of the network, also one of an E2B program, newest first unless order=asc',
  params: z.object({ sandbox_id: z.string() }),
  query: sandboxEgressListQuery,
  response: pageOf(egressRequest),
  /** The record outlives the sandbox: it is asked, not whether there is a sandbox. */
  async handle({ db, principal }, { params, query }) {
    if (!(await hasEgressRequests(db, principal.teamId, params.sandbox_id))) {
      throw new LonghaulError('not_found', `there is no record of requests of a sandbox ${params.sandbox_id}`);
    }
    const where = {
      teamId: principal.teamId,
      sandboxId: params.sandbox_id,
      state: query.state,
      decision: query.decision,
      host: query.host,
      credential: query.credential,
      created: createdRange(query),
    };
    return renderPage(await listEgressRequests(db, where, pageRequest(query)), renderEgressRequest);
  },
});
