import type { Queryable } from '../db/pool.ts';
import type { EventRow } from '../db/queries/events.ts';
import { listSessionInputs } from '../db/queries/turn-traces.ts';
import { GEN_AI, GENERAL, LONGHAUL } from '../telemetry/genai-names.ts';
import { inputSpan, parseTraceparent, sessionSpan } from '../telemetry/trace-ids.ts';
import type { Context } from './endpoint.ts';

type AcceptedInput = Pick<EventRow, 'id' | 'type'>;

/**
 * Shows accepted inputs in their session's trace, from the request to the hand-over; the turn that takes one links to it. The context of
 * the client is a link: its trace ends with the request, the session's does not.
 */
export function traceInputs(context: Context, sessionId: string, inputs: readonly AcceptedInput[]): void {
  const { tracing } = context.services;
  if (!tracing.isOn) return;
  context.afterCommit(() => Promise.resolve(record(context, sessionId, inputs)));
}

/** The same for a session's first inputs, which came with its creation. */
export function traceFirstInputs(context: Context, sessionId: string): void {
  if (!context.services.tracing.isOn) return;
  context.afterCommit(async () => {
    const inputs = await firstInputs(context.services.pool, sessionId).catch(() => []);
    record(context, sessionId, inputs);
  });
}

async function firstInputs(db: Queryable, sessionId: string): Promise<AcceptedInput[]> {
  return (await listSessionInputs(db, sessionId)).map((id) => ({ id, type: 'user.message' }));
}

function record(context: Context, sessionId: string, inputs: readonly AcceptedInput[]): void {
  const { principal, services, request } = context;
  const remote = parseTraceparent(request.traceparent);
  for (const { id: eventId, type } of inputs) {
    services.tracing.record({
      ...inputSpan(sessionId, eventId),
      parentSpanId: sessionSpan(sessionId).spanId,
      name: `receive ${type}`,
      kind: 'producer',
      startMs: request.startedMs,
      endMs: Date.now(),
      links: remote === undefined ? [] : [remote],
      attributes: {
        [GEN_AI.conversationId]: sessionId,
        [GENERAL.userId]: principal.userId,
        [LONGHAUL.teamId]: principal.teamId,
        [LONGHAUL.inputType]: type,
        [LONGHAUL.eventId]: eventId,
      },
    });
  }
}
