import { LonghaulError } from '../../contracts/error-codes.ts';
import type { ApprovalDecision } from '../../contracts/states.ts';
import type { Queryable } from '../../db/pool.ts';
import { requireRow, withTransaction } from '../../db/pool.ts';
import type { ApprovalRow } from '../../db/queries/approvals.ts';
import { consumeApproval, decideApproval, expireApproval, getApproval } from '../../db/queries/approvals.ts';
import type { EffectRow } from '../../db/queries/effects.ts';
import { getEffect, moveEffect, resultEvent } from '../../db/queries/effects.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { endApprovalInputs } from '../../db/queries/inputs.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import type { SettleApprovalArgs, SettleApprovalResult } from '../../workflows/activity-types.ts';
import { asFailure } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';

/** Decisions that come straight over Temporal carry no token of ours (invariant 12): that is what the record says. */
const TEMPORAL_OPERATOR = 'temporal-signal';

/**
 * Makes the decision effective for the effect. Postgres is the judge: a decision the API recorded stands, whatever a
 * later signal says; one that only the signal knows is recorded here.
 */
export async function settleApproval(deps: ActivityDeps, args: SettleApprovalArgs): Promise<SettleApprovalResult> {
  return asFailure(() =>
    withTransaction(deps.pool, async (tx) => {
      const known = requireRow(await getApproval(tx, args.approvalId), `approval ${args.approvalId}`);
      await lockSession(tx, known.sessionId);
      if (args.decision !== undefined) await recordDecision(tx, known, args.decision, args.message);
      else if (args.expire === true) await expireApproval(tx, args.approvalId);
      const approval = requireRow(await getApproval(tx, args.approvalId), `approval ${args.approvalId}`);
      const result = await apply(tx, approval);
      if (result !== 'pending') await endApprovalInputs(tx, approval.sessionId, approval.id);
      return result;
    }),
  );
}

async function recordDecision(
  tx: Queryable,
  known: ApprovalRow,
  decision: ApprovalDecision,
  message: string | undefined,
): Promise<void> {
  if (known.state !== 'pending') return;
  try {
    await decideApproval(tx, {
      approvalId: known.id,
      decision,
      decidedBy: TEMPORAL_OPERATOR,
      ...(message === undefined ? {} : { message }),
    });
  } catch (error) {
    // Too late or nonsense for this question: what Postgres says then decides.
    if (!(error instanceof LonghaulError)) throw error;
    if (error.code === 'approval_expired') await expireApproval(tx, known.id);
  }
}

async function apply(tx: Queryable, approval: ApprovalRow): Promise<SettleApprovalResult> {
  const effect = await getEffect(tx, requireRow(approval.effectId ?? undefined, `tool call of ${approval.id}`));
  switch (approval.state) {
    case 'pending':
      return 'pending';
    case 'approved':
      return grant(tx, approval, effect);
    case 'denied':
      return close(tx, effect, false, approval.message ?? 'Denied by a person.');
    case 'expired':
      return close(tx, effect, false, 'Nobody approved this in time. Ask again if it is still needed.');
    case 'cancelled':
      return close(tx, effect, false, 'The question was withdrawn.');
    case 'consumed':
      return effect.state === 'started' || effect.state === 'allowed' ? 'run' : 'closed';
  }
}

async function grant(tx: Queryable, approval: ApprovalRow, effect: EffectRow): Promise<SettleApprovalResult> {
  if (approval.kind === 'effect') {
    await moveEffect(tx, effect.id, 'waiting', 'allowed');
    return 'run';
  }
  if (approval.decision === 'retry') {
    await moveEffect(tx, effect.id, 'unknown', 'allowed', { nextGeneration: true });
    return 'run';
  }
  await consumeApproval(tx, approval.id);
  return close(tx, effect, true, approval.message ?? 'A person confirmed that this was done.');
}

/** Ends an effect that will not run (again) and tells the model why. */
async function close(tx: Queryable, effect: EffectRow, ok: boolean, text: string): Promise<SettleApprovalResult> {
  const content = [{ type: 'text' as const, text }];
  const to = ok ? 'succeeded' : effect.state === 'waiting' || effect.state === 'allowed' ? 'denied' : 'failed';
  const open = effect.state === 'waiting' || effect.state === 'allowed' || effect.state === 'unknown';
  if (!open || !(await moveEffect(tx, effect.id, effect.state, to, { result: { content }, isError: !ok }))) {
    return 'closed';
  }
  await appendEvents(tx, effect.sessionId, [resultEvent(effect, 'settled', { content, isError: !ok })]);
  return 'closed';
}

/** A custom tool that nobody answered in time fails, so that the model can go on. */
export async function expireCustomTool(deps: ActivityDeps, args: { effectId: string }): Promise<void> {
  await asFailure(() =>
    withTransaction(deps.pool, async (tx) => {
      const { sessionId } = await getEffect(deps.pool, args.effectId);
      await lockSession(tx, sessionId);
      const content = [{ type: 'text' as const, text: 'The client did not answer this tool call in time.' }];
      const result = { content };
      if (!(await moveEffect(tx, args.effectId, 'waiting', 'failed', { result, isError: true }))) return;
      await appendEvents(tx, sessionId, [
        {
          type: 'agent.custom_tool_cancelled',
          dedupeKey: `result/${args.effectId}/expired`,
          payload: { tool_use_id: args.effectId, content, is_error: true },
        },
      ]);
    }),
  );
}
