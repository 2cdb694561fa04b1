import type { TracedApproval, TracedEffect, TracedSession, TracedTurn } from '../../db/queries/turn-traces.ts';
import { GEN_AI, GENERAL, LONGHAUL, OPERATION, SPAN_EVENT } from '../../telemetry/genai-names.ts';
import { contentAttribute } from '../../telemetry/redact.ts';
import { effectSpan, inputSpan, sessionSpan, turnSpan } from '../../telemetry/trace-ids.ts';
import type { Attributes, FinishedSpan } from '../../telemetry/tracing.ts';
import type { TurnSegment } from '../../telemetry/turn-segments.ts';
import { segmentsOf } from '../../telemetry/turn-segments.ts';

/** What the product calls the workflow of a session. */
const WORKFLOW_NAME = 'session';

/** The turn, cut at its waits. */
export function turnSegments(turn: TracedTurn): TurnSegment[] {
  const times = { startedMs: turn.startedAt.getTime(), endedMs: turn.endedAt?.getTime() ?? null };
  const marks = turn.marks.map(({ kind, at }) => ({ kind, atMs: at.getTime() }));
  return segmentsOf(times, marks);
}

/**
 * The root of a session's trace: from its creation to the start of its first turn. It does not hold the turns in time, for a session
 * can live for months and its root must be there when somebody looks.
 */
export function rootSpan({ session, startedAt }: TracedTurn): FinishedSpan {
  return {
    ...sessionSpan(session.id),
    name: `${OPERATION.workflow} ${WORKFLOW_NAME}`,
    kind: 'internal',
    startMs: session.createdAt.getTime(),
    endMs: startedAt.getTime(),
    attributes: {
      [GEN_AI.operation]: OPERATION.workflow,
      [GEN_AI.workflowName]: WORKFLOW_NAME,
      ...identity(session),
    },
  };
}

/** One stretch of a turn. */
export function segmentSpan(turn: TracedTurn, segments: readonly TurnSegment[], segment: TurnSegment): FinishedSpan {
  const { session } = turn;
  const isLast = turn.endedAt !== null && segment.endMs === turn.endedAt.getTime();
  const links =
    segment.index === 0
      ? turn.inputs.map((eventId) => inputSpan(session.id, eventId))
      : [turnSpan(session.id, turn.turn, segment.index - 1)];
  return {
    ...turnSpan(session.id, turn.turn, segment.index),
    parentSpanId: sessionSpan(session.id).spanId,
    name: session.agentName === null ? OPERATION.agent : `${OPERATION.agent} ${session.agentName}`,
    kind: 'internal',
    startMs: segment.startMs,
    endMs: segment.endMs ?? segment.startMs,
    links,
    errorType: isLast && turn.state === 'failed' ? (turn.stopReason?.type ?? 'failed') : undefined,
    events: turn.approvals.flatMap((approval) => approvalEvent(approval, segments, segment)),
    attributes: {
      [GEN_AI.operation]: OPERATION.agent,
      ...identity(session),
      [GEN_AI.requestModel]: turn.model,
      [LONGHAUL.turn]: turn.turn,
      [LONGHAUL.turnSegment]: segment.index,
      [LONGHAUL.turnState]: isLast ? turn.state : 'waiting',
      [LONGHAUL.stopReason]: isLast ? turn.stopReason?.type : 'requires_action',
    },
  };
}

/** A decision, in the stretch it fell into or that it let begin. */
function approvalEvent(
  approval: TracedApproval,
  segments: readonly TurnSegment[],
  segment: TurnSegment,
): NonNullable<FinishedSpan['events']> {
  const atMs = approval.decidedAt?.getTime();
  if (atMs === undefined) return [];
  const place = segments.find(({ endMs }) => endMs === null || endMs >= atMs);
  if (place?.index !== segment.index) return [];
  return [
    {
      name: SPAN_EVENT.approval,
      atMs,
      attributes: {
        [LONGHAUL.approvalId]: approval.id,
        [LONGHAUL.effectId]: approval.effectId,
        [LONGHAUL.approvalState]: approval.state,
        [LONGHAUL.approvalDecision]: approval.decision,
        [LONGHAUL.waitedSeconds]: (atMs - approval.createdAt.getTime()) / 1_000,
      },
    },
  ];
}

/** One start of a tool call, to its end or to the moment it was lost. */
export function toolSpan(
  effect: TracedEffect,
  around: TracedTurn,
  segment: number,
  withContent: boolean,
): FinishedSpan {
  const endMs = (effect.endedAt ?? new Date()).getTime();
  return {
    ...effectSpan(effect.sessionId, effect.id, effect.generation),
    parentSpanId: turnSpan(effect.sessionId, effect.turn, segment).spanId,
    name: `${OPERATION.tool} ${effect.tool}`,
    kind: 'internal',
    startMs: effect.startedAt.getTime(),
    endMs,
    errorType: effect.state === 'failed' ? 'tool_error' : effect.state === 'unknown' ? 'outcome_unknown' : undefined,
    attributes: {
      [GEN_AI.operation]: OPERATION.tool,
      [GEN_AI.toolName]: effect.tool,
      [GEN_AI.toolType]: 'function',
      [GEN_AI.toolCallId]: effect.toolUseId,
      ...identity(around.session),
      [LONGHAUL.turn]: effect.turn,
      [LONGHAUL.step]: effect.step,
      [LONGHAUL.effectId]: effect.id,
      [LONGHAUL.effectState]: effect.state,
      [LONGHAUL.effectGeneration]: effect.generation,
      [LONGHAUL.verdict]: effect.verdict,
      [LONGHAUL.sandboxId]: effect.sandboxId,
      ...(withContent ? toolContent(effect) : {}),
    },
  };
}

function toolContent(effect: TracedEffect): Attributes {
  const given = contentAttribute(effect.input);
  const result = contentAttribute(effect.result?.content ?? []);
  return {
    [GEN_AI.toolArguments]: given.text,
    [GEN_AI.toolResult]: result.text,
    [LONGHAUL.contentRedacted]: given.isChanged || result.isChanged,
  };
}

function identity(session: TracedSession): Attributes {
  return {
    [GEN_AI.conversationId]: session.id,
    [GEN_AI.agentId]: session.agentId,
    [GEN_AI.agentName]: session.agentName,
    [GEN_AI.agentVersion]: String(session.agentVersion),
    [GENERAL.userId]: session.createdBy,
    [LONGHAUL.teamId]: session.teamId,
    [LONGHAUL.deploymentId]: session.deploymentId,
    [LONGHAUL.harness]: session.harness,
    [LONGHAUL.repo]: session.repo,
    [LONGHAUL.labels]: session.labels.length === 0 ? null : session.labels,
    [LONGHAUL.trigger]: session.trigger,
  };
}
