import { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, type HrTime, type SpanContext } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { detectResources, envDetector, resourceFromAttributes, type Resource } from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  SamplingDecision,
  TraceIdRatioBasedSampler,
  type ReadableSpan,
  type SpanExporter,
} from '@opentelemetry/sdk-trace';
import type { TracingConfig } from './config.ts';
import { SEMCONV } from './genai-names.ts';
import type { Logger } from './logger.ts';
import { withOpenInference } from './openinference.ts';
import type { SpanRef } from './trace-ids.ts';
import type { Attributes, AttributeValue, FinishedSpan, Tracing } from './tracing.ts';

const KINDS: Record<FinishedSpan['kind'], SpanKind> = {
  internal: SpanKind.INTERNAL,
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
};
/** A process that stops does not wait longer for a collector that is away. */
const CLOSE_MS = 3_000;
const COMPLAIN_EVERY_MS = 60_000;

/**
 * Hands whole spans to OpenTelemetry's batching and exporter. Its tracer is not used: our spans are made when they are
 * over, with ids of ours, and nothing of them is in flight when a process dies.
 */
export class OtlpTracing implements Tracing {
  readonly isOn = true;
  readonly withContent: boolean;
  readonly #config: TracingConfig;
  readonly #resource: Resource;
  readonly #sampler: TraceIdRatioBasedSampler;
  readonly #processor: BatchSpanProcessor;

  constructor(role: string, config: TracingConfig, logger: Logger) {
    this.#config = config;
    this.withContent = config.withContent;
    this.#sampler = new TraceIdRatioBasedSampler(config.sampler.ratio);
    this.#resource = resourceFromAttributes({
      'service.name': config.serviceName ?? `longhaul-${role}`,
      'service.namespace': 'longhaul',
      'longhaul.role': role,
      'process.pid': process.pid,
    }).merge(detectResources({ detectors: [envDetector] }));
    this.#processor = new BatchSpanProcessor({
      exporter: complaining(new OTLPTraceExporter(), logger),
      maxQueueSize: config.batch.maxQueueSpans,
      maxExportBatchSize: Math.min(config.batch.maxBatchSpans, config.batch.maxQueueSpans),
      scheduledDelayMillis: config.batch.delayMs,
      exportTimeoutMillis: config.batch.timeoutMs,
    });
  }

  record(span: FinishedSpan): void {
    if (span.parentIsUnsampled === true && this.#config.sampler.followsParent) return;
    const kind = KINDS[span.kind];
    const { decision } = this.#sampler.shouldSample(ROOT_CONTEXT, span.traceId);
    if (decision !== SamplingDecision.RECORD_AND_SAMPLED) return;
    const attributes = this.#config.openInference ? withOpenInference(span) : span.attributes;
    this.#processor.onEnd(readable(span, kind, attributes, this.#resource));
  }

  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_MS);
    });
    await Promise.race([this.#processor.shutdown().catch(() => undefined), patience]);
    clearTimeout(timer);
  }
}

/** Says that spans get lost, but not for each batch. */
function complaining(exporter: SpanExporter, logger: Logger): SpanExporter {
  let quietUntilMs = 0;
  let lost = 0;
  return {
    export: (spans, done) => {
      exporter.export(spans, (result) => {
        if (result.error !== undefined) {
          lost += spans.length;
          if (Date.now() >= quietUntilMs) {
            quietUntilMs = Date.now() + COMPLAIN_EVERY_MS;
            // The message only: an error of the exporter can quote the request's headers.
            logger.warn({ lost, reason: result.error.message.slice(0, 200) }, 'spans were not exported');
            lost = 0;
          }
        }
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
  };
}

function readable(span: FinishedSpan, kind: SpanKind, attributes: Attributes, resource: Resource): ReadableSpan {
  const context = contextOf(span);
  const startTime = hrTime(span.startMs);
  // A clock that was set back must not make a span of negative length.
  const endTime = hrTime(Math.max(span.startMs, span.endMs));
  return {
    name: span.name,
    kind,
    spanContext: () => context,
    ...(span.parentSpanId === undefined
      ? {}
      : { parentSpanContext: contextOf({ traceId: span.traceId, spanId: span.parentSpanId }) }),
    startTime,
    endTime,
    duration: hrTime(Math.max(0, span.endMs - span.startMs)),
    status: { code: span.errorType === undefined ? SpanStatusCode.UNSET : SpanStatusCode.ERROR },
    attributes: clean(span.errorType === undefined ? attributes : { ...attributes, 'error.type': span.errorType }),
    links: (span.links ?? []).map((link) => ({ context: contextOf(link) })),
    events: (span.events ?? []).map((event) => ({
      name: event.name,
      time: hrTime(event.atMs),
      attributes: clean(event.attributes),
    })),
    ended: true,
    resource,
    instrumentationScope: { name: 'longhaul', schemaUrl: SEMCONV.schemaUrl },
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}

function contextOf({ traceId, spanId }: SpanRef): SpanContext {
  return { traceId, spanId, traceFlags: TraceFlags.SAMPLED };
}

function clean(attributes: Attributes): Record<string, Exclude<AttributeValue, readonly string[]> | string[]> {
  const kept: Record<string, Exclude<AttributeValue, readonly string[]> | string[]> = {};
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) kept[name] = typeof value === 'object' ? [...value] : value;
  }
  return kept;
}

/** Seconds and nanoseconds. */
function hrTime(ms: number): HrTime {
  const seconds = Math.floor(ms / 1_000);
  return [seconds, Math.round((ms - seconds * 1_000) * 1_000_000)];
}
