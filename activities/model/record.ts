import { ApplicationFailure } from '@temporalio/activity';
import { LIMITS } from '../../contracts/limits.ts';
import type { StopReasonType } from '../../contracts/states.ts';
import { assertNever, FINAL_EFFECT_STATES } from '../../contracts/states.ts';
import type { Pool, Queryable } from '../../db/pool.ts';
import { withTransaction } from '../../db/pool.ts';
import { findLatestForEffect } from '../../db/queries/approvals.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import type { EffectDraft, EffectRow } from '../../db/queries/effects.ts';
import { isInterrupted } from '../../db/queries/inputs.ts';
import { insertEffects, listEffects, resultEvent } from '../../db/queries/effects.ts';
import { appendEvents } from '../../db/queries/events.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { lockSession, setRunning } from '../../db/queries/session-status.ts';
import { findStep, insertStep, lockTurn, turnStop } from '../../db/queries/turns.ts';
import type { ModelStepResult, PlannedEffect, StepRef } from '../../workflows/activity-types.ts';
import type { SandboxFacts } from '../approvals/ask.ts';
import { askHuman, sandboxFacts } from '../approvals/ask.ts';
import type { ActivityDeps } from '../deps.ts';
import { writeTurnEnd } from '../../db/queries/turn-end.ts';
import { draftEffects, draftEvents } from './answer.ts';
import type { ModelAnswer } from './stream.ts';

/** The workflow shows it to people; with it all calls of a step fit into 4 KB. */
const SHOWN_NAME_CHARS = 32;

/** Writes a step whole: row, events, effects, approvals, audit and, at the end of a turn, its end. */
export async function recordAnswer(
  deps: ActivityDeps,
  session: SessionForTurn,
  at: StepRef,
  model: string,
  answer: ModelAnswer,
): Promise<void> {
  const effects = draftEffects(session, at, answer);
  const asks = effects.some((effect) => effect.verdict === 'ask');
  const sandbox = asks ? await sandboxFacts(deps, session) : undefined;
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, at.sessionId);
    // A late attempt of a worker that was taken for dead finds the turn over or the step written, and adds nothing.
    if ((await lockTurn(tx, at.sessionId, at.turn)) !== 'running') return;
    // A cancellation reaches an activity with its next heartbeat; an answer that is faster must not outrun the interrupt.
    if (await isInterrupted(tx, at.sessionId, at.turn)) {
      const reason = 'interrupted by a client';
      return writeTurnEnd(tx, { ...at, state: 'interrupted', stopReason: 'interrupted', reason, eventIds: [] });
    }
    const row = { turn: at.turn, step: at.step, model, ...answer };
    if (!(await insertStep(tx, at.sessionId, row))) return;
    await setRunning(tx, at.sessionId);
    await insertEffects(tx, effects);
    await appendEvents(tx, at.sessionId, draftEvents(session, at, answer, effects));
    await recordVerdicts(tx, session, effects, sandbox);
    if (effects.length === 0) {
      const stopReason = stopReasonOf(answer);
      await writeTurnEnd(tx, { ...at, state: 'completed', stopReason, reason: stopReason, eventIds: [] });
    }
  });
}

/** What the policy said of new effects: audit rows, questions to people, and the results of what is denied. */
export async function recordVerdicts(
  tx: Queryable,
  session: SessionForTurn,
  effects: EffectDraft[],
  sandbox: SandboxFacts | undefined,
): Promise<void> {
  for (const effect of effects) {
    await insertAudit(tx, {
      teamId: session.teamId,
      actor: 'policy',
      action: 'effect.judge',
      resource: effect.id,
      sessionId: session.id,
      decision: effect.verdict,
      digest: effect.digest,
      details: { tool: effect.tool, reason: effect.verdictReason },
    });
    if (effect.verdict === 'ask' && sandbox !== undefined) {
      await askHuman(tx, { session, effect, kind: 'effect', generation: 1, reason: effect.verdictReason, sandbox });
    }
  }
  await appendDenials(tx, session.id, effects);
}

async function appendDenials(
  tx: Queryable,
  sessionId: string,
  effects: Pick<EffectRow, 'id' | 'kind' | 'state' | 'result'>[],
): Promise<void> {
  const denied = effects.filter((effect) => effect.state === 'denied');
  await appendEvents(
    tx,
    sessionId,
    denied.map((effect) => resultEvent(effect, 1, { content: effect.result?.content ?? [], isError: true })),
  );
}

function stopReasonOf(answer: ModelAnswer): StopReasonType {
  switch (answer.stopReason) {
    case 'end_turn':
    case 'tool_use':
      return 'end_turn';
    case 'max_tokens':
      return 'max_tokens';
    case 'refusal':
      return 'refusal';
    default:
      return assertNever(answer.stopReason);
  }
}

/** What the workflow is told of a step, from the record. */
export async function recordedResult(pool: Pool, at: StepRef): Promise<ModelStepResult> {
  const ended = await turnStop(pool, at.sessionId, at.turn);
  if (ended !== undefined) return { kind: 'ended', stopReason: ended };
  const step = await findStep(pool, at.sessionId, at.turn, at.step);
  if (step === undefined) throw ApplicationFailure.retryable('the step is not recorded', 'step_missing');
  const effects = await listEffects(pool, at.sessionId, at);
  const planned: PlannedEffect[] = [];
  for (const effect of effects) {
    const plan = await planOf(pool, effect);
    if (plan !== undefined) planned.push(plan);
  }
  return { kind: 'tools', effects: planned };
}

/** What the workflow is to do about an effect now; undefined: it has its end. */
export async function planOf(pool: Queryable, effect: EffectRow): Promise<PlannedEffect | undefined> {
  if ((FINAL_EFFECT_STATES as readonly string[]).includes(effect.state)) return undefined;
  const base = { effectId: effect.id, tool: effect.tool.slice(0, SHOWN_NAME_CHARS) };
  if (effect.kind === 'custom') return { ...base, plan: 'custom' };
  const timeoutMs = timeoutOf(effect);
  if (effect.state === 'waiting' || (effect.state === 'unknown' && effect.kind === 'harness')) {
    // It may be decided already; the signal that says so waits in the workflow (or in the outbox).
    const approval = await findLatestForEffect(pool, effect.id);
    if (approval === undefined)
      throw ApplicationFailure.nonRetryable('a waiting effect without a question', 'internal');
    return { ...base, plan: 'ask', approvalId: approval.id, expiresAtMs: approval.expiresAt.getTime(), timeoutMs };
  }
  return { ...base, plan: 'run', parallel: effect.idempotent, timeoutMs };
}

function timeoutOf(effect: EffectRow): number {
  const asked = effect.input['timeout_ms'];
  const wanted = effect.tool === 'bash' && typeof asked === 'number' ? asked : LIMITS.toolTimeoutMs;
  return Math.min(wanted, LIMITS.toolTimeoutMaxMs);
}
