import { z } from 'zod';
import { LIMITS } from './limits.ts';
import { intParam, timeParam } from './paging.ts';

/** What usage can be grouped and filtered by; a call that has no such thing is in the group `null`. */
export const USAGE_DIMENSIONS = [
  'user',
  'agent',
  'agent_version',
  'session',
  'root_session',
  'thread',
  'turn',
  'step',
  'deployment',
  'harness',
  'runtime',
  'provider',
  'model',
  'requested_model',
  'model_deployment',
  'protocol',
  'key',
  'repo',
  'label',
  'trigger',
  'tool',
] as const;
export type UsageDimension = (typeof USAGE_DIMENSIONS)[number];
export type UsageBucket = 'hour' | 'day' | 'month';
export type UsageSort = 'group' | 'cost' | 'calls';

const word = z.string().min(1).max(256).optional();
const number = intParam(0, 2_147_483_647).optional();
const INTEGERS: ReadonlySet<UsageDimension> = new Set(['agent_version', 'turn', 'step']);
const filters = Object.fromEntries(
  USAGE_DIMENSIONS.map((name) => [name, INTEGERS.has(name) ? number : word]),
) as Record<UsageDimension, typeof word | typeof number>;

const range = {
  from: timeParam.optional().meta({ description: 'First moment; default: the beginning of this month (UTC)' }),
  to: timeParam.optional().meta({ description: 'First moment that is not part of it; default: now' }),
};
const groupBy = z
  .array(z.enum(USAGE_DIMENSIONS))
  .max(LIMITS.usageGroupDimensions)
  .refine((names) => new Set(names).size === names.length, 'must not name a dimension twice');

export const usageQuery = z.strictObject({
  ...range,
  ...filters,
  'group_by[]': groupBy.optional(),
  bucket: z.enum(['hour', 'day', 'month']).optional().meta({ description: 'Pieces of time, in UTC' }),
  sort: z.enum(['group', 'cost', 'calls']).optional().meta({ description: '`cost` and `calls`: the most first' }),
  format: z.enum(['json', 'csv']).optional().meta({ description: 'CSV without grouping: a line for every call' }),
  limit: intParam(1, LIMITS.pageSizeMax).optional(),
  page: z.string().max(4_096).optional().meta({ description: 'Cursor: `next_page` of the page before' }),
});

const whole = z.number().int();
export const usageSums = z
  .object({
    calls: whole,
    errors: whole.meta({ description: 'Calls that did not end well' }),
    unpriced_calls: whole.meta({ description: 'Calls of models without a price: not in the cost' }),
    estimated_calls: whole.meta({ description: 'Calls whose provider did not say what they used' }),
    input_tokens: whole.meta({ description: 'Without those read from or written to a cache' }),
    cache_read_tokens: whole,
    cache_write_5m_tokens: whole,
    cache_write_1h_tokens: whole,
    output_tokens: whole,
    reasoning_tokens: whole.meta({ description: 'A part of the output tokens' }),
    web_searches: whole,
    cost_micros: whole.meta({ description: 'Micro-dollars' }),
  })
  .meta({ id: 'UsageSums' });
export type UsageSumsResource = z.infer<typeof usageSums>;

export const usageReport = z
  .object({
    type: z.literal('usage_report'),
    from: z.string(),
    to: z.string(),
    data: z.array(
      usageSums.extend({
        bucket_start: z.string().nullable(),
        group: z.record(z.string(), z.union([z.string(), z.number(), z.null()])),
      }),
    ),
    totals: usageSums.nullable().meta({ description: 'Over all groups; on the first page only' }),
    next_page: z.string().nullable(),
  })
  .meta({ id: 'UsageReport' });

const PERCENTILE_DIMENSIONS = ['agent', 'agent_version', 'model', 'provider', 'deployment', 'repo', 'harness'] as const;
export const percentilesQuery = z.strictObject({
  ...range,
  'group_by[]': z.array(z.enum(PERCENTILE_DIMENSIONS)).min(1).max(LIMITS.usageGroupDimensions).optional(),
  per: z.enum(['call', 'turn', 'session']).optional().meta({ description: 'What one sample is; default: a call' }),
  agent: word,
  agent_version: number,
  model: word,
  deployment: word,
  repo: word,
  limit: intParam(1, LIMITS.pageSizeMax).optional(),
});

const spread = z.object({ p50: z.number(), p95: z.number() }).nullable();
const percentilesOf = z.object({
  samples: whole,
  input_tokens: spread.meta({ description: 'All input, cached or not' }),
  output_tokens: spread,
  cost_micros: spread.meta({ description: 'null when no sample has a price' }),
  latency_ms: spread.meta({ description: 'Time at the provider, summed over the calls of a sample' }),
  ttft_ms: spread.meta({ description: 'Time to the first byte; of calls only' }),
});
export const usagePercentiles = z
  .object({
    type: z.literal('usage_percentiles'),
    from: z.string(),
    to: z.string(),
    per: z.enum(['call', 'turn', 'session']),
    data: z.array(percentilesOf.extend({ group: z.record(z.string(), z.union([z.string(), z.number(), z.null()])) })),
  })
  .meta({ id: 'UsagePercentiles' });

export const estimateQuery = z.strictObject({ version: intParam(1, 2_147_483_647).optional() });
export const agentEstimate = z
  .object({
    type: z.literal('agent_estimate'),
    agent_id: z.string(),
    version: whole.nullable().meta({ description: 'null: from all versions, since this one has too few sessions' }),
    from: z.string(),
    to: z.string(),
    session: percentilesOf,
    turn: percentilesOf,
    call: percentilesOf,
  })
  .meta({ id: 'AgentEstimate' });
