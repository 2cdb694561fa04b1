import { LIMITS } from '../../contracts/limits.ts';
import type { EffectDraft } from '../../db/queries/effects.ts';
import type { EventDraft } from '../../db/queries/events.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { AssistantBlock } from '../../db/queries/turns.ts';
import type { StepRef } from '../../workflows/activity-types.ts';
import { splitMcpToolName } from '../../contracts/mcp.ts';
import { derivedId, digestOf } from '../digest.ts';
import type { Judgement } from './policy.ts';
import { evaluationOf, judge } from './policy.ts';
import type { ModelAnswer } from './stream.ts';
import { inputProblem } from '../../contracts/tool-inputs.ts';

type ToolUse = Extract<AssistantBlock, { type: 'tool_use' }>;

export const placeOf = (at: StepRef): string => `${at.sessionId}/${at.turn}/${at.step}`;

/** Ids of the events a step's text ends up in: known before the first token, the same in every attempt. */
export function textEventIds(at: StepRef): Record<'agent.message' | 'agent.thinking', string> {
  return {
    'agent.message': derivedId('event', `${placeOf(at)}/message`),
    'agent.thinking': derivedId('event', `${placeOf(at)}/thinking`),
  };
}

/** The ledger rows of a step's tool calls, with the verdict of the agent's permissions on each. */
export function draftEffects(session: SessionForTurn, at: StepRef, answer: ModelAnswer): EffectDraft[] {
  const calls = answer.content.filter((block): block is ToolUse => block.type === 'tool_use');
  return calls.map((call, position) => draftEffect(session, at, call, position));
}

function draftEffect(session: SessionForTurn, at: StepRef, call: ToolUse, position: number): EffectDraft {
  const judgement = refuseBadInput(call, position, judge(session.agent, call.name));
  return draftJudged(at, call, judgement, { position, id: derivedId('event', `${placeOf(at)}/tool/${position}`) });
}

/** The ledger row of one call as it was judged. */
export function draftJudged(
  at: StepRef,
  call: Pick<ToolUse, 'id' | 'name' | 'input'>,
  judgement: Judgement,
  { position, id }: { position: number; id: string },
): EffectDraft {
  const denied = judgement.verdict === 'deny';
  return {
    id,
    sessionId: at.sessionId,
    turn: at.turn,
    step: at.step,
    position,
    toolUseId: call.id,
    tool: call.name,
    kind: judgement.kind,
    idempotent: judgement.idempotent,
    input: call.input,
    digest: digestOf({ tool: call.name, input: call.input }),
    state: denied ? 'denied' : judgement.verdict === 'ask' || judgement.kind === 'custom' ? 'waiting' : 'allowed',
    verdict: judgement.verdict,
    verdictReason: judgement.reason,
    result: denied ? { content: [{ type: 'text', text: `Not run: ${judgement.reason}` }] } : null,
    isError: denied ? true : null,
  };
}

/** A call that cannot run is answered at once, so that nobody is asked to approve nonsense. */
export function refuseBadInput(
  call: Pick<ToolUse, 'name' | 'input'>,
  position: number,
  judgement: Judgement,
): Judgement {
  if (judgement.verdict === 'deny') return judgement;
  const problem =
    position >= LIMITS.toolCallsPerStep
      ? `more than ${LIMITS.toolCallsPerStep} tool calls in one step; make this call again in the next`
      : judgement.kind === 'builtin' || judgement.kind === 'platform'
        ? inputProblem(call.name, call.input)
        : undefined;
  return problem === undefined ? judgement : { ...judgement, kind: 'invalid', verdict: 'deny', reason: problem };
}

/** The events of a finished step, in the order a viewer should see them. */
export function draftEvents(
  session: SessionForTurn,
  at: StepRef,
  answer: ModelAnswer,
  effects: EffectDraft[],
): EventDraft[] {
  const ids = textEventIds(at);
  const text = answer.content.flatMap((block) => (block.type === 'text' ? [block] : []));
  const thought = answer.content.some((block) => block.type === 'thinking' || block.type === 'redacted_thinking');
  const { usage } = answer;
  return [
    ...(thought ? [{ id: ids['agent.thinking'], type: 'agent.thinking', dedupeKey: ids['agent.thinking'] }] : []),
    ...(text.length === 0
      ? []
      : [
          {
            id: ids['agent.message'],
            type: 'agent.message',
            payload: { content: text },
            dedupeKey: ids['agent.message'],
          },
        ]),
    ...effects.map((effect) => toolUseEvent(effect, judge(session.agent, effect.tool))),
    {
      type: 'span.model_request_end',
      dedupeKey: `model-end/${placeOf(at)}`,
      payload: {
        model_request_start_id: modelStartId(at),
        is_error: false,
        model_usage: {
          input_tokens: usage.inputTokens,
          output_tokens: usage.outputTokens,
          cache_read_input_tokens: usage.cacheReadTokens,
          cache_creation_input_tokens: usage.cacheWrite5mTokens + usage.cacheWrite1hTokens,
        },
      },
    },
  ];
}

export function modelStartId(at: StepRef): string {
  return derivedId('event', `${placeOf(at)}/model-start`);
}

/** The event that tells of a call, under the effect's id. */
export function toolUseEvent(effect: EffectDraft, judgement: Judgement): EventDraft {
  const base = { id: effect.id, dedupeKey: effect.id };
  if (effect.kind === 'custom') {
    return { ...base, type: 'agent.custom_tool_use', payload: { name: effect.tool, input: effect.input } };
  }
  const evaluation = evaluationOf(judgement);
  const place = effect.kind === 'mcp' ? splitMcpToolName(effect.tool) : undefined;
  return {
    ...base,
    type: place === undefined ? 'agent.tool_use' : 'agent.mcp_tool_use',
    payload: {
      ...(place === undefined ? { name: effect.tool } : { mcp_server_name: place.server, name: place.tool }),
      input: effect.input,
      evaluated_permission: effect.verdict,
      ...(evaluation === undefined ? {} : { evaluation }),
    },
  };
}
