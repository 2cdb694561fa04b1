import { LonghaulError } from '../contracts/error-codes.ts';
import type { ClientEvent } from '../contracts/events.ts';
import { LIMITS } from '../contracts/limits.ts';
import type { ApprovalDecision, InputKind } from '../contracts/states.ts';
import { assertNever } from '../contracts/states.ts';
import { requireRow } from '../db/pool.ts';
import type { Queryable } from '../db/pool.ts';
import type { ApprovalRow } from '../db/queries/approvals.ts';
import { decideApproval, findLatestForEffect, findPendingForEffect } from '../db/queries/approvals.ts';
import { insertAudit } from '../db/queries/audit.ts';
import { getEffect, moveEffect } from '../db/queries/effects.ts';
import type { EventRow } from '../db/queries/events.ts';
import { appendEvents } from '../db/queries/events.ts';
import { insertInputs } from '../db/queries/inputs.ts';
import type { SessionRow } from '../db/queries/sessions.ts';
import { acceptMessages, countQueuedMessages } from '../db/queries/sessions.ts';
import { requireBudgetable } from './budget.ts';
import { primaryThreadId } from './render/threads.ts';

/** Refuses a session that takes nothing more. */
export function requireOpen(row: SessionRow): void {
  if (row.archivedAt !== null) throw new LonghaulError('session_archived', `session ${row.id} is archived`);
  if (row.closingAt !== null || row.status === 'terminated') {
    throw new LonghaulError('session_terminated', `session ${row.id} has ended`);
  }
}

/**
 * Accepts client events in one transaction: event rows, input rows and what they change commit together (invariant 1).
 * The caller holds the lock of the session's row.
 */
export async function acceptEvents(
  tx: Queryable,
  session: SessionRow,
  events: readonly ClientEvent[],
  actor: string,
): Promise<EventRow[]> {
  requireOpen(session);
  await requireRoom(tx, session.id, events);
  const accepted: EventRow[] = [];
  for (const [index, event] of events.entries()) {
    accepted.push(await acceptOne(tx, session, event, { actor, field: `events[${index}]` }));
  }
  return accepted;
}

/** Only messages wait in the queue: what ends a turn or answers it must get through however long the queue is. */
async function requireRoom(tx: Queryable, sessionId: string, events: readonly ClientEvent[]): Promise<void> {
  const messages = events.filter((event) => event.type === 'user.message').length;
  if (messages === 0 || (await countQueuedMessages(tx, sessionId)) + messages <= LIMITS.queuedInputs) return;
  throw new LonghaulError('queue_full', `at most ${LIMITS.queuedInputs} messages may wait`, { retryAfterMs: 5_000 });
}

interface Origin {
  actor: string;
  field: string;
}

async function acceptOne(tx: Queryable, session: SessionRow, event: ClientEvent, origin: Origin): Promise<EventRow> {
  switch (event.type) {
    case 'user.message': {
      if (event.model !== undefined) {
        const asked = { model: event.model, budget: session.budget, field: `${origin.field}.model` };
        await requireBudgetable(tx, session.teamId, asked);
      }
      const [row] = await acceptMessages(tx, session.id, [event]);
      return requireRow(row, 'event');
    }
    case 'user.interrupt':
      requirePrimaryThread(session, event.session_thread_id, origin);
      return appendInput(tx, session.id, { type: event.type, payload: {}, kind: 'interrupt', message: {} });
    case 'user.tool_confirmation':
      requirePrimaryThread(session, event.session_thread_id, origin);
      return acceptConfirmation(tx, session, event, origin);
    case 'user.custom_tool_result':
      requirePrimaryThread(session, event.session_thread_id, origin);
      return acceptCustomResult(tx, session, event, origin);
    default:
      return assertNever(event);
  }
}

function requirePrimaryThread(session: SessionRow, threadId: string | null | undefined, origin: Origin): void {
  if (threadId === undefined || threadId === null || threadId === primaryThreadId(session.id)) return;
  throw new LonghaulError('invalid_request', 'is not the primary thread of this session', {
    field: `${origin.field}.session_thread_id`,
  });
}

/** Appends one event with the input row that takes it to the workflow. */
export async function appendInput(
  tx: Queryable,
  sessionId: string,
  input: { type: string; payload: Record<string, unknown>; kind: InputKind; message: Record<string, unknown> },
): Promise<EventRow> {
  const [row] = await appendEvents(tx, sessionId, [{ type: input.type, payload: input.payload, processed: false }]);
  const event = requireRow(row, 'event');
  await insertInputs(tx, sessionId, [
    { eventId: event.id, kind: input.kind, message: { eventId: event.id, kind: input.kind, ...input.message } },
  ]);
  return event;
}

async function acceptCustomResult(
  tx: Queryable,
  session: SessionRow,
  event: Extract<ClientEvent, { type: 'user.custom_tool_result' }>,
  origin: Origin,
): Promise<EventRow> {
  const id = event.custom_tool_use_id;
  const effect = await getEffect(tx, id);
  if (effect.sessionId !== session.id) throw new LonghaulError('not_found', `tool call ${id} does not exist`);
  const isError = event.is_error ?? false;
  const content = event.content ?? [];
  const moved =
    effect.kind === 'custom' &&
    (await moveEffect(tx, id, 'waiting', isError ? 'failed' : 'succeeded', {
      result: { content },
      isError,
    }));
  if (!moved) throw new LonghaulError('no_pending_action', `tool call ${id} waits for no result`);
  await insertAudit(tx, {
    teamId: session.teamId,
    actor: origin.actor,
    action: 'custom_tool.result',
    resource: id,
    sessionId: session.id,
    digest: effect.digest,
    details: { tool: effect.tool, is_error: isError },
  });
  return appendInput(tx, session.id, {
    type: event.type,
    payload: { custom_tool_use_id: id, content, is_error: isError },
    kind: 'custom_tool_result',
    message: { effectId: id },
  });
}

async function acceptConfirmation(
  tx: Queryable,
  session: SessionRow,
  event: Extract<ClientEvent, { type: 'user.tool_confirmation' }>,
  origin: Origin,
): Promise<EventRow> {
  const id = event.tool_use_id;
  const approval = (await findPendingForEffect(tx, id)) ?? (await findLatestForEffect(tx, id));
  if (approval === undefined) {
    const effect = await getEffect(tx, id);
    if (effect.sessionId === session.id)
      throw new LonghaulError('no_pending_action', `tool call ${id} waits for nobody`);
  }
  if (approval?.sessionId !== session.id) throw new LonghaulError('not_found', `tool call ${id} does not exist`);
  const decision = confirmedDecision(approval, event.result);
  const { event: row } = await confirm(tx, {
    approval,
    decision,
    actor: origin.actor,
    message: event.deny_message ?? undefined,
  });
  if (row !== undefined) return row;
  // Said before: the log keeps that it was said again, the workflow is not told twice.
  const [repeat] = await appendEvents(tx, session.id, [
    { type: event.type, payload: confirmationPayload(approval, decision, event.deny_message ?? undefined) },
  ]);
  return requireRow(repeat, 'event');
}

/**
 * `allow` never means "run it again": a client that resends its confirmation, or allows everything, would repeat an effect
 * whose first outcome nobody knows.
 */
function confirmedDecision(approval: ApprovalRow, result: 'allow' | 'deny'): ApprovalDecision {
  if (approval.kind === 'effect') return result;
  if (result === 'deny') return 'skip';
  throw new LonghaulError(
    'no_pending_action',
    `the outcome of this call is unknown: decide approval ${approval.id} with done, retry or skip`,
  );
}

/** Decides an approval and tells the workflow; a repeat of the same decision does neither. */
export async function confirm(
  tx: Queryable,
  given: {
    approval: ApprovalRow;
    decision: ApprovalDecision;
    actor: string;
    message?: string | undefined;
    editedInput?: Record<string, unknown> | undefined;
  },
): Promise<{ approval: ApprovalRow; event: EventRow | undefined }> {
  const { decision, actor, message, editedInput } = given;
  const { outcome, approval } = await decideApproval(tx, {
    approvalId: given.approval.id,
    decision,
    decidedBy: actor,
    message,
    editedInput,
  });
  if (outcome === 'repeated') return { approval, event: undefined };
  const event = await appendInput(tx, approval.sessionId, {
    type: 'user.tool_confirmation',
    payload: {
      ...confirmationPayload(approval, decision, message),
      ...(editedInput === undefined ? {} : { edited_input: editedInput }),
    },
    kind: 'tool_confirmation',
    message: { approvalId: approval.id, decision, ...(message === undefined ? {} : { message }) },
  });
  return { approval, event };
}

function confirmationPayload(
  approval: ApprovalRow,
  decision: ApprovalDecision,
  message: string | undefined,
): Record<string, unknown> {
  const denied = decision === 'deny' || decision === 'skip';
  return {
    tool_use_id: approval.effectId,
    result: denied ? 'deny' : 'allow',
    deny_message: denied ? (message ?? null) : null,
    approval_id: approval.id,
    decision,
  };
}
