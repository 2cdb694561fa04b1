import type { UsageDimension } from '../../contracts/usage.ts';
import type { Queryable } from '../pool.ts';
import { DIMENSION_COLUMNS, scopeFilter, type UsageScope } from './usage-report.ts';

/** Half of the samples are at or below `p50`, 19 of 20 at or below `p95`. */
export interface Spread {
  p50: number;
  p95: number;
}

export interface Percentiles {
  samples: number;
  inputTokens: Spread | null;
  outputTokens: Spread | null;
  costMicros: Spread | null;
  latencyMs: Spread | null;
  ttftMs: Spread | null;
}

export interface PercentileGroup extends Percentiles {
  group: Partial<Record<UsageDimension, string | number | null>>;
}

/** What one sample is: a call, or all calls of a turn or a session taken together. */
export type SampleKind = 'call' | 'turn' | 'session';

const SAMPLE_KEYS: Readonly<Record<SampleKind, readonly string[]>> = {
  call: ['id'],
  turn: ['session_id', 'turn'],
  session: ['session_id'],
};
const INPUT = 'input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens';
const MEASURES = ['input_tokens', 'output_tokens', 'cost_micros', 'latency_ms', 'ttft_ms'] as const;

/** Spread of tokens, cost and time over the samples of each group, groups with the most samples first. */
export async function usagePercentiles(
  db: Queryable,
  scope: UsageScope,
  asked: { groupBy: readonly Exclude<UsageDimension, 'label'>[]; per: SampleKind; limit: number },
): Promise<PercentileGroup[]> {
  const { groupBy, per } = asked;
  const filter = scopeFilter(scope, false);
  // A call that did not end well says nothing about what one needs.
  filter.addFixed('error IS NULL');
  if (per !== 'call') filter.addFixed('session_id IS NOT NULL');
  const groups = groupBy.map((name) => `${DIMENSION_COLUMNS[name]} AS g_${name}`);
  const keys = groupBy.map((name) => `g_${name}`);
  const samples =
    per === 'call'
      ? `SELECT ${[...groups, `${INPUT} AS input_tokens`].join(', ')}, output_tokens, cost_micros, latency_ms, ttft_ms`
      : `SELECT ${[...groups, `sum(${INPUT}) AS input_tokens`].join(', ')}, sum(output_tokens) AS output_tokens,
         CASE WHEN bool_and(cost_micros IS NOT NULL) THEN sum(cost_micros) END AS cost_micros,
         sum(latency_ms) AS latency_ms, NULL::int AS ttft_ms`;
  const byColumns = [...groupBy.map((name) => DIMENSION_COLUMNS[name]), ...SAMPLE_KEYS[per]];
  const spreads = MEASURES.map(
    (name) => `percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY ${name}) AS ${name}`,
  );
  const result = await db.query<Record<string, unknown>>(
    `SELECT ${[...keys, 'count(*)::int AS samples', ...spreads].join(', ')}
     FROM (${samples} FROM ledger WHERE ${filter.conditions.join(' AND ')}
       ${per === 'call' ? '' : `GROUP BY ${byColumns.join(', ')}`}) AS sample
     ${keys.length === 0 ? '' : `GROUP BY ${keys.join(', ')}`}
     ORDER BY ${['samples DESC', ...keys].join(', ')} LIMIT $${filter.params.length + 1}`,
    [...filter.params, asked.limit],
  );
  return result.rows.map((row) => ({
    group: Object.fromEntries(groupBy.map((name) => [name, row[`g_${name}`]])) as PercentileGroup['group'],
    samples: Number(row['samples']),
    inputTokens: spreadOf(row['input_tokens']),
    outputTokens: spreadOf(row['output_tokens']),
    costMicros: spreadOf(row['cost_micros']),
    latencyMs: spreadOf(row['latency_ms']),
    ttftMs: spreadOf(row['ttft_ms']),
  }));
}

function spreadOf(value: unknown): Spread | null {
  const [p50, p95] = Array.isArray(value) ? (value as unknown[]) : [];
  return typeof p50 === 'number' && typeof p95 === 'number' ? { p50: Math.round(p50), p95: Math.round(p95) } : null;
}
