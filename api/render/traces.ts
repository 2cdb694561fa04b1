import type { SessionTraceResource, TraceCall, TraceEffect, TraceStep, TraceTurn } from '../../contracts/traces.ts';
import type {
  TraceApprovalRow,
  TraceCallRow,
  TraceEffectRow,
  TraceMarkRow,
  TracePage,
  TraceTurnRow,
} from '../../db/queries/session-traces.ts';
import { callSpanId, effectSpan, sessionSpan, turnSpan } from '../../telemetry/trace-ids.ts';
import { segmentAt, segmentsOf, type TurnSegment } from '../../telemetry/turn-segments.ts';
import { isoOrNull } from './times.ts';

/** The turns of a page, with the ids their spans are exported under. */
export function renderTurns(sessionId: string, page: TracePage): SessionTraceResource['turns'] {
  return page.turns.map((turn) => renderTurn(sessionId, turn, page));
}

function renderTurn(sessionId: string, turn: TraceTurnRow, page: TracePage): TraceTurn {
  const ofTurn = (row: { turn: number | null }): boolean => row.turn === turn.turn;
  const marks = page.marks.filter((mark) => mark.at >= turn.startedAt && (mark.kind === 'running' || ofTurn(mark)));
  const segments = segmentsOf(
    { startedMs: turn.startedAt.getTime(), endedMs: turn.endedAt?.getTime() ?? null },
    marks.map(({ kind, at }) => ({ kind, atMs: at.getTime() })),
  );
  const place = { sessionId, turn: turn.turn, segments, pauses: marks.filter(({ kind }) => kind === 'paused') };
  const steps = page.places.filter((at) => ofTurn(at) && at.step >= 0);
  return {
    turn: turn.turn,
    state: turn.state,
    model: turn.model,
    stop_reason: turn.stopReason === null ? null : { ...turn.stopReason },
    started_at: turn.startedAt.toISOString(),
    ended_at: isoOrNull(turn.endedAt),
    duration_ms: turn.endedAt === null ? null : turn.endedAt.getTime() - turn.startedAt.getTime(),
    waited_ms: waitedMs(segments, turn.endedAt),
    parts: segments.map((segment) => ({
      span_id: turnSpan(sessionId, turn.turn, segment.index).spanId,
      started_at: new Date(segment.startMs).toISOString(),
      ended_at: segment.endMs === null ? null : new Date(segment.endMs).toISOString(),
    })),
    steps: steps.map(({ step }) => renderStep(place, step, page)),
  };
}

/** Where in a session's tree a turn's things hang. */
interface TurnPlace {
  sessionId: string;
  turn: number;
  segments: TurnSegment[];
  pauses: TraceMarkRow[];
}

function renderStep(place: TurnPlace, step: number, page: TracePage): TraceStep {
  const here = (row: { turn: number | null; step: number | null }): boolean =>
    row.turn === place.turn && row.step === step;
  const call = page.calls.find(here);
  // Pauses of a step come after its call. Those of harnesses are numbered apart from their tool calls.
  const isOfStep = call === undefined || call.callKey !== call.id;
  const segment = isOfStep ? place.pauses.filter((pause) => (pause.step ?? 0) < step).length : 0;
  const parent = turnSpan(place.sessionId, place.turn, segment).spanId;
  return {
    step,
    stop_reason: page.steps.find(here)?.stopReason ?? null,
    call: call === undefined ? null : renderCall(call, parent),
    effects: page.effects.filter(here).map((effect) => renderEffect(place, effect, page.approvals)),
  };
}

/** A call of the ledger, as a span. */
export function renderCall(row: TraceCallRow, parentSpanId: string): TraceCall {
  return {
    id: row.id,
    span_id: callSpanId(row),
    parent_span_id: parentSpanId,
    provider: row.provider,
    model: row.model,
    requested_model: row.requestedModel,
    model_deployment: row.modelDeployment,
    protocol: row.protocol,
    harness: row.harness,
    input_tokens: row.inputTokens,
    cache_read_input_tokens: row.cacheReadTokens,
    cache_creation_input_tokens: row.cacheWriteTokens,
    output_tokens: row.outputTokens,
    reasoning_tokens: row.reasoningTokens,
    usage_basis: row.usageBasis,
    cost_micros: row.costMicros,
    ttft_ms: row.ttftMs,
    generation_ms: row.ttftMs === null ? null : Math.max(0, row.latencyMs - row.ttftMs),
    latency_ms: row.latencyMs,
    cache: row.cache,
    http_status: row.httpStatus,
    error: row.error,
    attempts: row.attempts,
    // The row is written when the call has ended.
    started_at: new Date(row.createdAt.getTime() - row.latencyMs).toISOString(),
    ended_at: row.createdAt.toISOString(),
  };
}

/** The calls of a session's key outside of steps hang on the session itself. */
export function renderOtherCalls(sessionId: string, rows: TraceCallRow[]): TraceCall[] {
  return rows.map((row) => renderCall(row, sessionSpan(sessionId).spanId));
}

function renderEffect(place: TurnPlace, row: TraceEffectRow, approvals: TraceApprovalRow[]): TraceEffect {
  const { sessionId, turn, segments } = place;
  const startedMs = row.startedAt?.getTime();
  const segment = segmentAt(segments, startedMs ?? Number.NEGATIVE_INFINITY);
  return {
    id: row.id,
    span_id: startedMs === undefined ? null : effectSpan(sessionId, row.id, row.generation).spanId,
    parent_span_id: turnSpan(sessionId, turn, segment).spanId,
    tool: row.tool,
    tool_use_id: row.toolUseId,
    state: row.state,
    verdict: row.verdict,
    generation: row.generation,
    sandbox_id: row.sandboxId,
    started_at: isoOrNull(row.startedAt),
    ended_at: isoOrNull(row.endedAt),
    duration_ms: startedMs === undefined || row.endedAt === null ? null : row.endedAt.getTime() - startedMs,
    approvals: approvals
      .filter((approval) => approval.effectId === row.id)
      .map((approval) => ({
        id: approval.id,
        kind: approval.kind,
        state: approval.state,
        decision: approval.decision,
        requested_at: approval.createdAt.toISOString(),
        decided_at: isoOrNull(approval.decidedAt),
        waited_ms: Math.max(0, (approval.decidedAt ?? new Date()).getTime() - approval.createdAt.getTime()),
      })),
  };
}

function waitedMs(segments: readonly TurnSegment[], turnEndedAt: Date | null): number {
  const lastEndMs = segments.at(-1)?.endMs ?? null;
  // The last part is over and the turn is not: it waits now.
  let waited = turnEndedAt === null && lastEndMs !== null ? Math.max(0, Date.now() - lastEndMs) : 0;
  for (const [index, segment] of segments.entries()) {
    const before = segments[index - 1]?.endMs;
    if (before !== undefined && before !== null) waited += segment.startMs - before;
  }
  return waited;
}
