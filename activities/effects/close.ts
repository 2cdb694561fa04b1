import { ApplicationFailure } from '@temporalio/activity';
import { assertNever } from '../../contracts/states.ts';
import type { ContentBlock } from '../../contracts/definitions.ts';
import type { Queryable } from '../../db/pool.ts';
import { withTransaction } from '../../db/pool.ts';
import { consumeApproval, findLatestForEffect } from '../../db/queries/approvals.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import type { EffectRow } from '../../db/queries/effects.ts';
import { getEffect, moveEffect, resultEvent } from '../../db/queries/effects.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { takeNote } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import type { RunEffectResult } from '../../workflows/activity-types.ts';
import { askHuman, sandboxFacts } from '../approvals/ask.ts';
import type { ActivityDeps } from '../deps.ts';
import type { ToolOutcome } from './outcome.ts';

/** Writes the result once: a zombie attempt that comes late finds the state moved and adds nothing. */
export async function finishEffect(
  deps: ActivityDeps,
  session: SessionForTurn,
  effect: EffectRow,
  outcome: Extract<ToolOutcome, { kind: 'done' }>,
): Promise<RunEffectResult> {
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, session.id);
    const to = outcome.isError ? 'failed' : 'succeeded';
    const content = [...(await noteFor(tx, effect)), ...outcome.content];
    const change = { result: { content }, isError: outcome.isError };
    if (!(await moveEffect(tx, effect.id, 'started', to, change, effect.generation))) return;
    const { isError } = outcome;
    await appendEvents(tx, session.id, [resultEvent(effect, effect.generation, { content, isError })]);
    await audit(tx, session, effect, to);
  });
  return outcomeOf(deps, session, await getEffect(deps.pool, effect.id));
}

/** What the agent has to know of its sandbox, once, before anything it hears from it. */
async function noteFor(tx: Queryable, effect: EffectRow): Promise<ContentBlock[]> {
  const note = await takeNote(tx, effect);
  return note === null ? [] : [{ type: 'text', text: `[sandbox: ${note}]` }];
}

/** There is no place to run it in; it never started, and the model is told why. */
export async function failUnstarted(
  deps: ActivityDeps,
  session: SessionForTurn,
  effect: EffectRow,
  reason: string,
): Promise<RunEffectResult> {
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, session.id);
    const content: ContentBlock[] = [{ type: 'text', text: reason }];
    if (effect.state === 'allowed') {
      if (!(await moveEffect(tx, effect.id, 'allowed', 'started', {}, effect.generation))) return;
      const approval = await findLatestForEffect(tx, effect.id);
      if (approval?.state === 'approved') await consumeApproval(tx, approval.id);
    }
    const change = { result: { content }, isError: true };
    if (!(await moveEffect(tx, effect.id, 'started', 'failed', change, effect.generation))) return;
    await appendEvents(tx, session.id, [resultEvent(effect, effect.generation, { content, isError: true })]);
    await audit(tx, session, effect, 'failed');
  });
  return outcomeOf(deps, session, await getEffect(deps.pool, effect.id));
}

/** It had started and its end is not known: never run again blindly, a person decides. */
export async function loseEffect(
  deps: ActivityDeps,
  session: SessionForTurn,
  effect: EffectRow,
  reason: string,
): Promise<RunEffectResult> {
  const sandbox = await sandboxFacts(deps, session);
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, session.id);
    if (!(await moveEffect(tx, effect.id, 'started', 'unknown', {}, effect.generation))) return;
    await askHuman(tx, { session, effect, kind: 'lost_effect', generation: effect.generation, reason, sandbox });
    await audit(tx, session, effect, 'unknown');
  });
  return outcomeOf(deps, session, await getEffect(deps.pool, effect.id));
}

async function audit(
  tx: Parameters<typeof insertAudit>[0],
  session: SessionForTurn,
  effect: EffectRow,
  decision: string,
): Promise<void> {
  await insertAudit(tx, {
    teamId: session.teamId,
    actor: 'workflow',
    action: 'effect.end',
    resource: effect.id,
    sessionId: session.id,
    decision,
    digest: effect.digest,
    details: { tool: effect.tool, generation: effect.generation },
  });
}

/** What the workflow is told, from the ledger. */
export async function outcomeOf(
  deps: ActivityDeps,
  session: SessionForTurn,
  effect: EffectRow,
): Promise<RunEffectResult> {
  switch (effect.state) {
    case 'succeeded':
    case 'failed':
    case 'denied':
      return { outcome: effect.state };
    case 'unknown': {
      const approval = await findLatestForEffect(deps.pool, effect.id);
      if (approval?.kind !== 'lost_effect') break;
      return { outcome: 'unknown', approvalId: approval.id, expiresAtMs: approval.expiresAt.getTime() };
    }
    case 'proposed':
    case 'waiting':
    case 'allowed':
    case 'started':
      break;
    default:
      return assertNever(effect.state);
  }
  throw ApplicationFailure.retryable(`effect ${effect.id} of ${session.id} is ${effect.state}`, 'effect_moved');
}
