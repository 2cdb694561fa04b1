import { withTransaction } from '../../db/pool.ts';
import type { Queryable } from '../../db/pool.ts';
import type { EffectDraft } from '../../db/queries/effects.ts';
import { getEffect, hasEffect, insertEffects, nextCallNumber } from '../../db/queries/effects.ts';
import { appendEvents } from '../../db/queries/events.ts';
import type { HarnessCallRow } from '../../db/queries/harness-calls.ts';
import { getHarnessCall, setCallEffect } from '../../db/queries/harness-calls.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { loadSessionForTurn, lockSession, setRunning } from '../../db/queries/session-status.ts';
import { lockTurn } from '../../db/queries/turns.ts';
import type { PlannedCall } from '../../workflows/harness-types.ts';
import { sandboxFacts } from '../approvals/ask.ts';
import { asFailure } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { derivedId } from '../digest.ts';
import { draftJudged, refuseBadInput, toolUseEvent } from '../model/answer.ts';
import type { Judgement } from '../model/policy.ts';
import { judge } from '../model/policy.ts';
import { planOf, recordVerdicts } from '../model/record.ts';
import { judgeOwnTool } from './own-tools.ts';

/**
 * Judges a tool call of a harness and writes effect, question, audit and event in one transaction, as a step's are. What it
 * returns is read from the record, so a repeat tells what the call is by now.
 */
export async function planCall(deps: ActivityDeps, args: { sessionId: string; callId: string }): Promise<PlannedCall> {
  return asFailure(async () => {
    const session = await loadSessionForTurn(deps.pool, args.sessionId);
    const judged = judgementOf(session, await getHarnessCall(deps.pool, args.callId));
    const sandbox = judged.verdict === 'ask' ? await sandboxFacts(deps, session) : undefined;
    return withTransaction(deps.pool, async (tx) => {
      const status = await lockSession(tx, session.id);
      const call = await getHarnessCall(tx, args.callId);
      const runs = status !== 'terminated' && (await lockTurn(tx, session.id, call.turn)) === 'running';
      if (call.effectId === null) {
        if (!runs) return { kind: 'closed' };
        const effect = await draft(tx, call, judged);
        await insertEffects(tx, [effect]);
        await setCallEffect(tx, call.id, effect.id);
        const shown = [toolUseEvent(effect, judged)];
        // An answer of people is asked for next: that tells the status.
        if (effect.verdict === 'ask') await appendEvents(tx, session.id, shown);
        else await setRunning(tx, session.id, shown);
        await recordVerdicts(tx, session, [effect], sandbox);
      }
      return plannedCall(tx, await getHarnessCall(tx, args.callId), runs);
    });
  });
}

async function plannedCall(tx: Queryable, call: HarnessCallRow, runs: boolean): Promise<PlannedCall> {
  if (call.effectId === null || !runs) return { kind: 'closed' };
  const effect = await planOf(tx, await getEffect(tx, call.effectId));
  return effect === undefined ? { kind: 'closed' } : { kind: 'open', executor: call.executor, effect };
}

function judgementOf(session: SessionForTurn, call: HarnessCallRow): Judgement {
  if (call.executor === 'harness') return judgeOwnTool(session.agent, call.tool);
  return refuseBadInput({ name: call.tool, input: call.input }, 0, judge(session.agent, call.tool));
}

async function draft(tx: Queryable, call: HarnessCallRow, judged: Judgement): Promise<EffectDraft> {
  const at = { sessionId: call.sessionId, turn: call.turn, step: await nextCallNumber(tx, call.sessionId, call.turn) };
  const use = { id: call.harnessCallId ?? call.id, name: call.tool, input: call.input };
  const id = await callEventId(tx, call);
  return draftJudged(at, use, judged, { position: 0, id });
}

/** Id of the event that tells of a call: the same whether the harness tells of it first or asks. */
async function callEventId(tx: Queryable, call: HarnessCallRow): Promise<string> {
  const byItself = derivedId('event', `call/${call.id}`);
  if (call.harnessCallId === null || call.executor === 'platform') return byItself;
  const id = ownCallEventId(call, call.harnessCallId);
  // The harness counts anew after its start: this id was another call's before.
  return (await hasEffect(tx, id)) ? byItself : id;
}

/** The same for a tool of the harness's own that it runs without asking. */
export function ownCallEventId(at: { sessionId: string; turn: number }, harnessCallId: string): string {
  return derivedId('event', `${at.sessionId}/${at.turn}/own-call/${harnessCallId}`);
}
