import { Histogram, Registry } from 'prom-client';
import type { LedgerEntry } from '../db/queries/ledger.ts';
import {
  GEN_AI,
  GENERAL,
  LONGHAUL,
  METRIC,
  OPERATION,
  SPAN_EVENT,
  TOKEN_TYPE,
  prometheusName,
} from '../telemetry/genai-names.ts';
import { callSpanId, parseTraceparent, sessionSpan, traceIdOf, turnSpan } from '../telemetry/trace-ids.ts';
import { contentAttribute } from '../telemetry/redact.ts';
import type { Attributes, FinishedSpan, Tracing } from '../telemetry/tracing.ts';
import { AnswerKeeper } from './answer-keeper.ts';
import type { ModelRequest } from './calls/model-request.ts';
import type { Provider } from './providers/port.ts';
import { answerContent, requestContent } from './trace-content.ts';

/** What OpenTelemetry's GenAI conventions want told of each model call: one span and three metrics. Nothing waits for it. */
export class CallTelemetry {
  readonly #tracing: Tracing;
  readonly #metrics: GenAiMetrics;
  readonly #keeper = new AnswerKeeper();
  #ended: { request: ModelRequest; entry: LedgerEntry; endMs: number }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(tracing: Tracing, registry: Registry = new Registry()) {
    this.#tracing = tracing;
    this.#metrics = new GenAiMetrics(registry);
  }

  /** The provider to call instead, so that the span can say what was answered, if it may. */
  watch(provider: Provider): Provider {
    return this.#tracing.withContent ? this.#keeper.watch(provider) : provider;
  }

  /**
   * A call has ended, or was answered from a cache; `entry` is its ledger row, also when none is written. What is told of
   * it waits a little, so that neither the end of this answer nor the next request waits for it.
   */
  ended(request: ModelRequest, entry: LedgerEntry): void {
    this.#ended.push({ request, entry, endMs: Date.now() });
    this.#timer ??= setTimeout(() => this.drain(), GATHER_MS);
  }

  /** Tells of all calls that have ended so far. */
  drain(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const calls = this.#ended;
    this.#ended = [];
    for (const { request, entry, endMs } of calls) {
      if (entry.cache === undefined) this.#metrics.ended(request, entry);
      if (this.#tracing.isOn) this.#tracing.record(this.#spanOf(request, entry, endMs));
    }
  }

  #contentOf(request: ModelRequest): Attributes {
    if (!this.#tracing.withContent) return {};
    try {
      return contentOf(request, this.#keeper.answerTo(request.upstream));
    } catch {
      // JSON of callers and providers can be nested deeper than a stack: the span is worth having without it.
      return { [LONGHAUL.contentRedacted]: true };
    }
  }

  #spanOf(request: ModelRequest, entry: LedgerEntry, endMs: number): FinishedSpan {
    return {
      ...placeOf(request, entry),
      name: `${OPERATION.chat} ${entry.requestedModel}`,
      kind: 'client',
      startMs: endMs - entry.latencyMs,
      endMs,
      errorType: entry.error ?? undefined,
      events: attemptEvents(entry, endMs),
      attributes: {
        ...attributesOf(entry),
        ...timing(request, entry),
        ...this.#contentOf(request),
      },
    };
  }
}

/** Calls gather for this long. */
const GATHER_MS = 20;
/** A larger request is not read for a trace. */
const MAX_READ_BYTES = 1024 * 1024;

function contentOf({ protocol, upstream }: ModelRequest, answer: Buffer): Attributes {
  const said = upstream.body.length > MAX_READ_BYTES ? undefined : requestContent(protocol, upstream.body);
  const input = said && contentAttribute(said.messages);
  const system = said?.system && contentAttribute(said.system);
  const output = answer.length === 0 ? undefined : contentAttribute(answerContent(protocol, answer));
  return {
    [GEN_AI.systemInstructions]: system?.text,
    [GEN_AI.inputMessages]: input?.text,
    [GEN_AI.outputMessages]: output?.text,
    [LONGHAUL.contentRedacted]: input === undefined || [input, system, output].some((text) => text?.isChanged === true),
  };
}

const [OPERATION_LABEL, PROVIDER_LABEL, MODEL_LABEL, TOKEN_LABEL] = [
  labelOf(GEN_AI.operation),
  labelOf(GEN_AI.provider),
  labelOf(GEN_AI.requestModel),
  labelOf(TOKEN_TYPE),
] as const;

class GenAiMetrics {
  readonly #duration: Histogram;
  readonly #firstChunk: Histogram;
  readonly #tokens: Histogram;

  constructor(registry: Registry) {
    const make = (metric: (typeof METRIC)[keyof typeof METRIC], help: string, more: string[]): Histogram =>
      new Histogram({
        name: prometheusName(metric),
        help,
        labelNames: [OPERATION_LABEL, PROVIDER_LABEL, MODEL_LABEL, ...more],
        buckets: [...metric.buckets],
        registers: [registry],
      });
    this.#duration = make(METRIC.operationDuration, 'GenAI operation duration', ['error_type']);
    this.#firstChunk = make(METRIC.timeToFirstChunk, 'Time to the first chunk of a streamed answer', []);
    this.#tokens = make(METRIC.tokenUsage, 'Tokens of a call; input includes cached ones', [TOKEN_LABEL]);
  }

  ended(request: ModelRequest, entry: LedgerEntry): void {
    const labels = {
      [OPERATION_LABEL]: OPERATION.chat,
      [PROVIDER_LABEL]: entry.provider,
      // Models without a price share one label: their names come from callers.
      [MODEL_LABEL]: entry.costMicros === null ? 'other' : entry.model,
    };
    this.#duration.observe({ ...labels, error_type: entry.error ?? '' }, entry.latencyMs / 1_000);
    if (request.isStream && entry.ttftMs !== null) this.#firstChunk.observe(labels, entry.ttftMs / 1_000);
    if (entry.usageBasis === 'none') return;
    this.#tokens.observe({ ...labels, [TOKEN_LABEL]: 'input' }, allInputTokens(entry));
    this.#tokens.observe({ ...labels, [TOKEN_LABEL]: 'output' }, entry.usage.outputTokens);
  }
}

function labelOf(attribute: string): string {
  return attribute.replaceAll('.', '_');
}

/** The conventions count cached tokens as input; our ledger keeps them apart. */
function allInputTokens({ usage }: LedgerEntry): number {
  return usage.inputTokens + usage.cacheReadTokens + cacheWriteTokens(usage);
}

function cacheWriteTokens(usage: LedgerEntry['usage']): number {
  return usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
}

/**
 * Inside a session everything is in the session's own trace; a caller's context from another trace becomes a link. Outside of
 * one, a call continues the caller's trace.
 */
function placeOf(
  request: ModelRequest,
  entry: LedgerEntry,
): Pick<FinishedSpan, 'traceId' | 'spanId' | 'parentSpanId' | 'links' | 'parentIsUnsampled'> {
  const spanId = callSpanId(entry);
  const remote = parseTraceparent(request.traceparent);
  const { sessionId } = entry.attribution;
  if (sessionId === null) {
    if (remote === undefined) return { traceId: traceIdOf(entry.id), spanId };
    return { traceId: remote.traceId, spanId, parentSpanId: remote.spanId, parentIsUnsampled: !remote.sampled };
  }
  const traceId = traceIdOf(sessionId);
  if (remote?.traceId === traceId) return { traceId, spanId, parentSpanId: remote.spanId };
  const parent = entry.turn === null ? sessionSpan(sessionId) : turnSpan(sessionId, entry.turn, 0);
  return { traceId, spanId, parentSpanId: parent.spanId, links: remote === undefined ? [] : [remote] };
}

function attributesOf(entry: LedgerEntry): Attributes {
  const { usage, attribution } = entry;
  return {
    [GEN_AI.operation]: OPERATION.chat,
    [GEN_AI.provider]: entry.provider,
    [GEN_AI.requestModel]: entry.requestedModel,
    [GEN_AI.responseModel]: entry.model,
    [GEN_AI.conversationId]: attribution.sessionId,
    [GEN_AI.agentId]: attribution.agentId,
    [GEN_AI.agentVersion]: attribution.agentVersion === null ? null : String(attribution.agentVersion),
    [GEN_AI.inputTokens]: allInputTokens(entry),
    [GEN_AI.outputTokens]: usage.outputTokens,
    [GEN_AI.cacheReadTokens]: usage.cacheReadTokens,
    [GEN_AI.cacheCreationTokens]: cacheWriteTokens(usage),
    [GEN_AI.reasoningTokens]: usage.reasoningTokens,
    [GENERAL.userId]: attribution.userId,
    [GENERAL.httpStatus]: entry.httpStatus,
    [LONGHAUL.teamId]: attribution.teamId,
    [LONGHAUL.rootSessionId]: attribution.rootSessionId,
    [LONGHAUL.deploymentId]: attribution.deploymentId,
    [LONGHAUL.harness]: attribution.harness,
    [LONGHAUL.runtime]: attribution.runtime,
    [LONGHAUL.repo]: attribution.repo,
    [LONGHAUL.labels]: attribution.labels.length === 0 ? null : attribution.labels,
    [LONGHAUL.trigger]: attribution.trigger,
    [LONGHAUL.turn]: entry.turn,
    [LONGHAUL.step]: entry.step,
    [LONGHAUL.callId]: entry.id,
    [LONGHAUL.modelDeployment]: entry.modelDeployment,
    [LONGHAUL.protocol]: entry.protocol,
    [LONGHAUL.costMicros]: entry.costMicros,
    [LONGHAUL.usageBasis]: entry.usageBasis,
    [LONGHAUL.cache]: entry.cache,
  };
}

/** Each deployment that was asked. The pauses between are not known, so an attempt's time is its earliest. */
function attemptEvents({ attempts = [], latencyMs }: LedgerEntry, endMs: number): NonNullable<FinishedSpan['events']> {
  let atMs = endMs - latencyMs;
  return attempts.map(({ deployment, provider, model, status, error, ms }, index) => {
    const event = {
      name: SPAN_EVENT.attempt,
      atMs: Math.min(atMs, endMs),
      attributes: {
        [LONGHAUL.attempt]: index + 1,
        [LONGHAUL.modelDeployment]: deployment,
        [GEN_AI.provider]: provider,
        [GEN_AI.responseModel]: model,
        [GENERAL.httpStatus]: status,
        [GENERAL.errorType]: error,
        [LONGHAUL.durationSeconds]: ms / 1_000,
      },
    };
    atMs += ms;
    return event;
  });
}

function timing(request: ModelRequest, { ttftMs, latencyMs }: LedgerEntry): Attributes {
  if (!request.isStream) return { [GEN_AI.requestStream]: false };
  return {
    [GEN_AI.requestStream]: true,
    [GEN_AI.timeToFirstChunk]: ttftMs === null ? null : ttftMs / 1_000,
    [LONGHAUL.generationSeconds]: ttftMs === null ? null : Math.max(0, latencyMs - ttftMs) / 1_000,
  };
}
