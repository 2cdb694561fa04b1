import { z } from 'zod';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { ApprovalDecision } from '../../contracts/states.ts';
import type { ApprovalRow } from '../../db/queries/approvals.ts';
import { listApprovals } from '../../db/queries/approvals.ts';
import { requireApproval } from '../require-approval.ts';
import { decideApproval } from '../routes/decide-approval.ts';
import type { Conversation } from './conversation.ts';
import { readConversation } from './read.ts';
import { renderPermission } from './render.ts';
import type { Call } from './request.ts';
import { callEndpoint, change, readBody } from './request.ts';
import type { PermissionRequest } from './wire.ts';

const answer = z.enum(['once', 'always', 'reject']);
const reply = z.looseObject({ reply: answer, message: z.string().max(10_000).nullish() });
const response = z.looseObject({ response: answer });

/** Every open question of the team. */
export async function getPermissions(call: Call): Promise<PermissionRequest[]> {
  const { pool } = call.services;
  const { teamId } = call.principal;
  const pending = await listApprovals(
    pool,
    { teamId, state: 'pending' },
    { limit: LIMITS.opencodePermissions, order: 'asc' },
  );
  const conversations = new Map<string, Conversation>();
  for (const { sessionId } of pending.data) {
    if (conversations.has(sessionId)) continue;
    conversations.set(sessionId, (await readConversation(pool, { id: sessionId }, 1)).conversation);
  }
  return pending.data.map((row) => renderPermission(row, conversations.get(row.sessionId)));
}

export async function replyPermission(call: Call): Promise<boolean> {
  const body = readBody(call, reply);
  return decide(call, call.params['requestID'] ?? '', body.reply, body.message ?? undefined);
}

/** The older route of the same. */
export async function respondPermission(call: Call): Promise<boolean> {
  const body = readBody(call, response);
  return decide(call, call.params['permissionID'] ?? '', body.response, undefined);
}

async function decide(
  call: Call,
  id: string,
  said: z.output<typeof answer>,
  message: string | undefined,
): Promise<boolean> {
  const row = await requireApproval(call.services.pool, call.principal.teamId, id);
  const { sessionID } = call.params;
  if (sessionID !== undefined && row.sessionId !== sessionID)
    throw new LonghaulError('not_found', `there is no approval ${id}`);
  const body = { decision: decisionOf(row, said), ...(message === undefined ? {} : { message }) };
  await change(call, (context) => callEndpoint(context, decideApproval, { params: { approval_id: id }, body }));
  return true;
}

/** No grant outlives its call here, so `always` is what `once` is. */
function decisionOf(row: ApprovalRow, said: z.output<typeof answer>): ApprovalDecision {
  if (row.kind !== 'lost_effect') return said === 'reject' ? 'deny' : 'allow';
  if (said === 'reject') return 'skip';
  throw new LonghaulError(
    'no_pending_action',
    `the outcome of this call is unknown: decide approval ${row.id} with done, retry or skip`,
  );
}
