import { createHash } from 'node:crypto';

/** Where a span stands. */
export interface SpanRef {
  /** 32 hex digits. */
  traceId: string;
  /** 16 hex digits. */
  spanId: string;
}

/** A caller's W3C trace context. */
export interface RemoteParent extends SpanRef {
  sampled: boolean;
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/**
 * Ids of traces and spans follow from the ids of what they show. So every process, also one that takes over from a dead
 * one, writes into the same trace without being told, and the trace built from the record names the same spans.
 */
export function traceIdOf(sessionId: string): string {
  return digest(sessionId, 32);
}

export type SpanPlace = 'session' | 'turn' | 'call' | 'effect' | 'input';

/** The id of the span that shows this thing. */
export function spanIdOf(place: SpanPlace, id: string): string {
  return digest(`${place}:${id}`, 16);
}

export function sessionSpan(sessionId: string): SpanRef {
  return { traceId: traceIdOf(sessionId), spanId: spanIdOf('session', sessionId) };
}

/** A stretch of a turn between two waits for people. */
export function turnSpan(sessionId: string, turn: number, segment: number): SpanRef {
  return { traceId: traceIdOf(sessionId), spanId: spanIdOf('turn', `${sessionId}/${turn}/${segment}`) };
}

export function inputSpan(sessionId: string, eventId: string): SpanRef {
  return { traceId: traceIdOf(sessionId), spanId: spanIdOf('input', eventId) };
}

/** One start of an effect. */
export function effectSpan(sessionId: string, effectId: string, generation: number): SpanRef {
  return { traceId: traceIdOf(sessionId), spanId: spanIdOf('effect', `${effectId}.${generation}`) };
}

/**
 * The span of the call a ledger row tells of. A step's key can be asked for again after a failure, and has one good answer:
 * that one is named by the key, every failure by its own row.
 */
export function callSpanId(row: { id: string; callKey: string; error: string | null }): string {
  return spanIdOf('call', row.error === null ? row.callKey : row.id);
}

/** The W3C header of a span that is recorded. */
export function formatTraceparent({ traceId, spanId }: SpanRef): string {
  return `00-${traceId}-${spanId}-01`;
}

/** Reads a W3C `traceparent`; undefined for anything that is none. */
export function parseTraceparent(header: string | string[] | undefined): RemoteParent | undefined {
  if (typeof header !== 'string' || header.length > 256) return undefined;
  const [, version, traceId = '', spanId = '', flags = '', rest] = TRACEPARENT.exec(header.trim()) ?? [];
  if (version === undefined || version === 'ff' || (version === '00' && rest !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

function digest(text: string, hexDigits: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, hexDigits);
}
