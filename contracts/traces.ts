import { z } from 'zod';
import { time } from './fields.ts';
import { LIMITS } from './limits.ts';
import { intParam } from './paging.ts';

const tokens = z.number().int();
const ms = z.number().int();
const spanId = z.string().meta({ description: 'The id under which the span is exported; 16 hex digits' });

const attempt = z
  .object({
    deployment: z.string().nullable(),
    provider: z.string(),
    model: z.string(),
    status: z.number().int().nullable(),
    error: z.string().nullable(),
    ms: z.number(),
  })
  .meta({ id: 'TraceAttempt' });

const call = z
  .object({
    id: z.string().meta({ description: 'Id of the ledger row' }),
    span_id: spanId,
    parent_span_id: spanId,
    provider: z.string(),
    model: z.string(),
    requested_model: z.string().nullable(),
    model_deployment: z.string().nullable(),
    protocol: z.string(),
    harness: z.string().nullable(),
    input_tokens: tokens.meta({ description: 'Without cached ones' }),
    cache_read_input_tokens: tokens,
    cache_creation_input_tokens: tokens,
    output_tokens: tokens,
    reasoning_tokens: tokens,
    usage_basis: z.enum(['reported', 'estimated', 'none']),
    cost_micros: z.number().int().nullable().meta({ description: 'Micro-dollars; null when the model has no price' }),
    ttft_ms: ms.nullable(),
    generation_ms: ms.nullable().meta({ description: 'From the first byte to the end' }),
    latency_ms: ms,
    cache: z.literal('hit').nullable().meta({ description: '`hit`: given again by the gateway, nothing was paid' }),
    http_status: z.number().int().nullable(),
    error: z.string().nullable(),
    attempts: z
      .array(attempt)
      .nullable()
      .meta({ description: 'Every deployment that was asked, in order; null when the first one answered' }),
    started_at: time,
    ended_at: time,
  })
  .meta({ id: 'TraceCall' });
export type TraceCall = z.infer<typeof call>;

const approval = z
  .object({
    id: z.string(),
    kind: z.enum(['effect', 'lost_effect', 'egress']),
    state: z.string(),
    decision: z.string().nullable(),
    requested_at: time,
    decided_at: time.nullable(),
    waited_ms: ms,
  })
  .meta({ id: 'TraceApproval' });

const effect = z
  .object({
    id: z.string(),
    span_id: spanId.nullable().meta({ description: 'null: it was never started' }),
    parent_span_id: spanId,
    tool: z.string(),
    tool_use_id: z.string(),
    state: z.string(),
    verdict: z.string(),
    generation: z.number().int(),
    sandbox_id: z.string().nullable(),
    started_at: time.nullable(),
    ended_at: time.nullable(),
    duration_ms: ms.nullable(),
    approvals: z.array(approval),
  })
  .meta({ id: 'TraceEffect' });
export type TraceEffect = z.infer<typeof effect>;

const step = z
  .object({
    step: z.number().int(),
    stop_reason: z.string().nullable().meta({ description: 'null: no answer is recorded' }),
    call: call.nullable(),
    effects: z.array(effect),
  })
  .meta({ id: 'TraceStep' });
export type TraceStep = z.infer<typeof step>;

const part = z.object({ span_id: spanId, started_at: time, ended_at: time.nullable() });
const turn = z
  .object({
    turn: z.number().int(),
    state: z.enum(['running', 'completed', 'failed', 'interrupted']),
    model: z.string(),
    stop_reason: z.looseObject({ type: z.string() }).nullable(),
    started_at: time,
    ended_at: time.nullable(),
    duration_ms: ms.nullable(),
    waited_ms: ms.meta({ description: 'Of it, waiting for people' }),
    parts: z.array(part).meta({ description: 'The turn is cut where it waited; each part is a span' }),
    steps: z.array(step),
  })
  .meta({ id: 'TraceTurn' });
export type TraceTurn = z.infer<typeof turn>;

/** The call tree of a session. */
export const sessionTrace = z
  .object({
    type: z.literal('session_trace'),
    session_id: z.string(),
    trace_id: z.string().meta({ description: 'The id under which the session is exported; 32 hex digits' }),
    span_id: spanId,
    agent: z.object({ id: z.string(), version: z.number().int(), name: z.string().nullable() }),
    status: z.string(),
    created_at: time,
    ended_at: time.nullable(),
    calls: z.number().int(),
    cost_micros: z.number().int().nullable(),
    turns: z
      .array(turn)
      .meta({ description: 'A turn that goes on on the next page is there, too, with its next steps' }),
    other_calls: z.array(call).meta({
      description: 'Calls with the session’s key that belong to no step, newest first; on the first page only',
    }),
    other_calls_truncated: z.boolean(),
    next_page: z.string().nullable(),
  })
  .meta({ id: 'SessionTrace' });
export type SessionTraceResource = z.infer<typeof sessionTrace>;

export const traceQuery = z.strictObject({
  limit: intParam(1, LIMITS.traceStepsMax).optional().meta({ description: 'Turns and steps per page', example: '100' }),
  page: z.string().max(512).optional().meta({ description: 'Cursor: `next_page` of the page before' }),
});
