import { approval, approvalDecide, approvalPath } from '../../contracts/approvals.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { inputProblem } from '../../contracts/tool-inputs.ts';
import type { Queryable } from '../../db/pool.ts';
import type { ApprovalRow } from '../../db/queries/approvals.ts';
import { getEffect } from '../../db/queries/effects.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { confirm, requireOpen } from '../accept-events.ts';
import { decideEgress } from '../decide-egress.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { traceInputs } from '../trace-inputs.ts';
import { renderApproval } from '../render/approvals.ts';
import { requireApproval } from '../require-approval.ts';

export const decideApproval = endpoint({
  method: 'post',
  path: '/v1/approvals/{approval_id}/decide',
  tag: 'Approvals',
  summary: 'Decide an approval',
  description:
    'allow or deny a tool call or a host; done, retry or skip a call whose outcome is unknown. The same decision again changes nothing; another one is refused with already_decided.',
  params: approvalPath,
  body: approvalDecide,
  response: approval,
  async handle(context, { params, body }) {
    const { db, principal, services, afterCommit } = context;
    const found = await requireApproval(db, principal.teamId, params.approval_id);
    if (found.kind === 'egress') return renderApproval(await decideEgress(db, found, body, actorOf(principal)));
    const editedInput = body.input ?? undefined;
    const problem = editedInput === undefined ? undefined : await editProblem(db, found, editedInput);
    if (problem !== undefined) throw new LonghaulError('invalid_request', problem, { field: 'input' });
    // The session's lock comes first everywhere, so that two deciders cannot block each other.
    const session = await getSession(db, principal.teamId, found.sessionId, { lock: true });
    if (found.state === 'pending') requireOpen(session);
    const decided = await confirm(db, {
      approval: found,
      decision: body.decision,
      actor: actorOf(principal),
      message: body.message ?? undefined,
      editedInput,
    });
    if (decided.event !== undefined) {
      afterCommit(() => services.delivery.deliver(session.id));
      traceInputs(context, session.id, [decided.event]);
    }
    return renderApproval(decided.approval);
  },
});

/** A harness's own tool may have the name of one of ours and other arguments: only the harness knows what it takes. */
async function editProblem(
  db: Queryable,
  { effectId, shown }: ApprovalRow,
  input: Record<string, unknown>,
): Promise<string | undefined> {
  const isOwn = effectId !== null && (await getEffect(db, effectId)).kind === 'harness';
  return isOwn ? undefined : inputProblem(shown.tool, input);
}
