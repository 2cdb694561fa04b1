import type { Logger } from './logger.ts';
import { readTracingConfig } from './config.ts';
import type { SpanRef } from './trace-ids.ts';

export type AttributeValue = string | number | boolean | readonly string[];
/** Undefined and null are left out. */
export type Attributes = Readonly<Record<string, AttributeValue | undefined | null>>;

/** A span as a whole: it is handed over once, when what it shows is over. */
export interface FinishedSpan extends SpanRef {
  parentSpanId?: string | undefined;
  /** A caller of ours outside of any session asked not to be recorded. */
  parentIsUnsampled?: boolean;
  name: string;
  kind: 'internal' | 'server' | 'client' | 'producer';
  startMs: number;
  endMs: number;
  attributes: Attributes;
  links?: readonly SpanRef[];
  events?: readonly { name: string; atMs: number; attributes: Attributes }[];
  /** A stable code; never the words of a provider or a tool, which can hold content. */
  errorType?: string | undefined;
}

/** Where spans go. `record` never throws and never waits. */
export interface Tracing {
  /** False: nothing is recorded, and what only tracing needs must not be done. */
  readonly isOn: boolean;
  /** Prompts, answers and tool texts were asked for. */
  readonly withContent: boolean;
  record(span: FinishedSpan): void;
  /** Sends what waits, for a bounded time. */
  close(): Promise<void>;
}

/** Tracing that is switched off. */
export const NO_TRACING: Tracing = {
  isOn: false,
  withContent: false,
  record: () => undefined,
  close: () => Promise.resolve(),
};

/** Reads the environment once; OpenTelemetry's code is loaded only when there is somewhere to send spans to. */
export async function createTracing(role: string, logger: Logger): Promise<Tracing> {
  const { config, problem } = readTracingConfig();
  if (problem !== undefined) logger.warn({ problem }, 'traces are not exported');
  if (config === undefined) return NO_TRACING;
  const { OtlpTracing } = await import('./otlp.ts');
  return new OtlpTracing(role, config, logger);
}
