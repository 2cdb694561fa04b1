import { ApplicationFailure, condition } from '@temporalio/workflow';
import { assertNever } from '../../contracts/states.ts';
import type { PlannedEffect, RunEffectResult, SettleApprovalResult, StepRef } from '../activity-types.ts';
import type { SessionContext } from './context.ts';
import { effectRun, preparation, records } from './proxies.ts';

/** A question, or a call of a client's tool, and until when it waits. */
export interface Waiting {
  kind: 'approval' | 'custom';
  effectId: string;
  tool: string;
  timeoutMs: number;
  expiresAtMs: number;
}

/** Works off the tool calls of one step; returns when each has its final state. */
export async function runStepEffects(context: SessionContext, at: StepRef, effects: PlannedEffect[]): Promise<void> {
  const waiting = new Map<string, Waiting>();
  for (const effect of effects) {
    if (effect.plan === 'ask') waiting.set(effect.approvalId, { ...effect, kind: 'approval' });
    if (effect.plan === 'custom') {
      // Bounded like the session's own idleness: a client that never answers must not hold the turn for ever.
      const expiresAtMs = Date.now() + context.args.limits.idleMs;
      waiting.set(effect.effectId, { ...effect, kind: 'custom', timeoutMs: 0, expiresAtMs });
    }
  }
  for (const batch of batches(effects)) {
    const lost = await Promise.all(batch.map((effect) => runOne(context, effect)));
    for (const entry of lost) if (entry !== undefined) waiting.set(...entry);
  }
  for (let pause = 0; waiting.size > 0; pause += 1) await settleNext(context, at, waiting, pause);
}

type Runnable = Extract<PlannedEffect, { plan: 'run' }>;

/** In the order the model gave them; neighbours that only read go together. */
function batches(effects: PlannedEffect[]): Runnable[][] {
  const result: Runnable[][] = [];
  for (const effect of effects) {
    if (effect.plan !== 'run') continue;
    const last = result.at(-1);
    if (effect.parallel && last?.[0]?.parallel === true) last.push(effect);
    else result.push([effect]);
  }
  return result;
}

/** Runs an effect; when its outcome is lost, gives the question a human must answer. */
export async function runOne(
  context: SessionContext,
  effect: { effectId: string; tool: string; timeoutMs: number },
): Promise<[string, Waiting] | undefined> {
  const { args } = context;
  const { effectId, tool, timeoutMs } = effect;
  const { runEffect } = effectRun(args.limits.turnTimeoutMs, timeoutMs, tool);
  const result = await withSandbox(context, () => runEffect({ sessionId: args.sessionId, effectId, timeoutMs }));
  switch (result.outcome) {
    case 'succeeded':
    case 'failed':
    case 'denied':
      return undefined;
    case 'unprepared':
      throw ApplicationFailure.nonRetryable('its sandboxes are gone as soon as they are ready', 'sandbox_unavailable');
    case 'unknown':
      return [result.approvalId, { kind: 'approval', effectId, tool, timeoutMs, expiresAtMs: result.expiresAtMs }];
    default:
      return assertNever(result);
  }
}

/** Sandboxes prepared for one effect before it is given up. */
const PREPARATIONS = 3;

/** Prepares the sandbox first where the effect says so: only its answer decides, so older histories replay as they are. */
async function withSandbox(context: SessionContext, run: () => Promise<RunEffectResult>): Promise<RunEffectResult> {
  let result = await run();
  for (let tries = 0; result.outcome === 'unprepared' && tries < PREPARATIONS; tries += 1) {
    await prepared(context);
    result = await run();
  }
  return result;
}

/** Prepares the sandbox; neighbours that run together wait for one preparation. */
export async function prepared(context: SessionContext): Promise<void> {
  const { sessionId, limits } = context.args;
  const { prepareSandbox } = preparation(limits.turnTimeoutMs);
  context.preparing ??= prepareSandbox({ sessionId }).finally(() => {
    context.preparing = undefined;
  });
  await context.preparing;
}

/** Waits, with no activity running, until one of the questions is answered or expires, then acts on it. */
async function settleNext(
  context: SessionContext,
  at: StepRef,
  waiting: Map<string, Waiting>,
  pause: number,
): Promise<void> {
  const { state } = context;
  const answered = (): string | undefined => [...waiting.keys()].find((key) => state.isAnswered(key));
  if (answered() === undefined) await waitForAnswer(context, at, waiting, pause, () => answered() !== undefined);
  const key = answered() ?? [...waiting].find(([, entry]) => entry.expiresAtMs <= Date.now())?.[0];
  const entry = key === undefined ? undefined : waiting.get(key);
  if (key === undefined || entry === undefined) return;
  const settled = await settle(context, key, entry);
  if (settled === 'pending') return;
  waiting.delete(key);
  state.waitingFor.delete(key);
  if (settled === 'run') {
    const lost = await runOne(context, entry);
    if (lost !== undefined) waiting.set(...lost);
  }
}

async function waitForAnswer(
  context: SessionContext,
  at: StepRef,
  waiting: Map<string, Waiting>,
  pause: number,
  isAnswered: () => boolean,
): Promise<void> {
  for (const key of waiting.keys()) context.state.waitingFor.add(key);
  const entries = [...waiting.values()];
  context.show(entries.map((entry) => entry.tool));
  await records.pauseTurn({ ...at, eventIds: entries.map((entry) => entry.effectId), pause });
  const nextExpiryMs = Math.min(...entries.map((entry) => entry.expiresAtMs));
  context.state.startWaiting(Date.now());
  await condition(isAnswered, Math.max(1, nextExpiryMs - Date.now()));
  context.state.stopWaiting(Date.now());
  context.show([]);
}

/** Acts on an answer, or on there being none in time. */
export async function settle(context: SessionContext, key: string, entry: Waiting): Promise<SettleApprovalResult> {
  const { state } = context;
  if (entry.kind === 'custom') {
    if (!state.answered.delete(key)) await records.expireCustomTool({ effectId: entry.effectId });
    return 'closed';
  }
  const signal = state.decisions.get(key);
  state.decisions.delete(key);
  return records.settleApproval({
    approvalId: key,
    ...(signal === undefined ? { expire: true } : { decision: signal.decision }),
    // What the API recorded is in Postgres; only a decision that came straight over Temporal carries its text.
    ...(signal?.message === undefined || signal.eventId !== undefined ? {} : { message: signal.message }),
  });
}
