import { z } from 'zod';
import { time } from './fields.ts';
import { createdFilters, idParam, orderParam, pageParams } from './paging.ts';

const state = z.enum(['started', 'completed', 'failed', 'denied']);
const decision = z.enum(['allow', 'deny', 'ask']);
const count = z.number().int();

/** One request of a sandbox, as the broker recorded it. */
export const egressRequest = z
  .object({
    id: z.string(),
    type: z.literal('egress_request'),
    session_id: z.string().nullable().meta({ description: 'null: a sandbox of the E2B server' }),
    sandbox_id: z.string(),
    seq: count.meta({ description: 'From 1 in each sandbox, without gaps' }),
    state: state.meta({ description: '`started` for good: the broker died, and it may have gone out' }),
    decision,
    rule: z.string().meta({ description: 'What decided' }),
    code: z.string().nullable().meta({ description: 'Why it was refused' }),
    method: z.string().nullable(),
    scheme: z.enum(['http', 'https']),
    host: z.string().nullable(),
    port: count.nullable(),
    path: z.string().nullable().meta({ description: 'Without query' }),
    status: count.nullable(),
    bytes_out: count.meta({ description: 'From the sandbox' }),
    bytes_in: count.meta({ description: 'To the sandbox' }),
    duration_ms: count.nullable(),
    credentials: z.array(z.string()).meta({ description: 'Names of those whose values were put in' }),
    approval_id: z.string().nullable(),
    error: z.string().nullable(),
    count: count.meta({ description: 'Above 1: a row for so many refusals alike; what differs among them is null' }),
    created_at: time,
    ended_at: time.nullable(),
  })
  .meta({ id: 'EgressRequest' });
export type EgressRequestResource = z.infer<typeof egressRequest>;

export const sandboxEgressListQuery = z.strictObject({
  ...pageParams,
  ...createdFilters,
  order: orderParam.optional(),
  state: state.optional(),
  decision: decision.optional(),
  host: z.string().min(1).max(253).optional(),
  credential: z.string().min(1).max(256).optional(),
});
export const egressListQuery = sandboxEgressListQuery.extend({ sandbox_id: idParam.optional() });

/** What a sandbox tried that does not happen by accident. */
export const securityEvent = z
  .object({
    id: z.string(),
    type: z.literal('security_event'),
    session_id: z.string().nullable().meta({ description: 'null: a sandbox of the E2B server' }),
    sandbox_id: z.string().nullable(),
    kind: z.string(),
    message: z.string(),
    host: z.string().nullable(),
    egress_request_id: z.string().nullable(),
    details: z.looseObject({}),
    created_at: time,
  })
  .meta({ id: 'SecurityEvent' });
export type SecurityEventResource = z.infer<typeof securityEvent>;

export const securityEventListQuery = z.strictObject({
  ...pageParams,
  ...createdFilters,
  order: orderParam.optional(),
  session_id: idParam.optional(),
  kind: z.string().min(1).max(64).optional(),
});
