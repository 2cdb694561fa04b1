import { LonghaulError } from '../../contracts/error-codes.ts';
import type { UsageBucket, UsageDimension, UsageSort } from '../../contracts/usage.ts';
import { Filter } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Which calls of a team, and what of them is asked. */
export interface UsageScope {
  teamId: string;
  from: Date;
  to: Date;
  filters: Partial<Record<UsageDimension, string | number>>;
}

export interface UsageGrouping {
  groupBy: readonly UsageDimension[];
  bucket: UsageBucket | undefined;
  sort: UsageSort;
}

export interface UsageSums {
  calls: number;
  errors: number;
  unpricedCalls: number;
  estimatedCalls: number;
  inputTokens: number;
  cacheReadTokens: number;
  cacheWrite5mTokens: number;
  cacheWrite1hTokens: number;
  outputTokens: number;
  reasoningTokens: number;
  webSearches: number;
  costMicros: number;
}

export interface UsageGroup extends UsageSums {
  /** RFC 3339; null without buckets. */
  bucketStart: string | null;
  group: Partial<Record<UsageDimension, string | number | null>>;
}

/** Where each dimension is in a row of the ledger; a call with two labels is in the groups of both. */
export const DIMENSION_COLUMNS: Readonly<Record<UsageDimension, string>> = {
  user: 'user_id',
  agent: 'agent_id',
  agent_version: 'agent_version',
  session: 'session_id',
  root_session: 'root_session_id',
  thread: 'thread_id',
  turn: 'turn',
  step: 'step',
  deployment: 'deployment_id',
  harness: 'harness',
  runtime: 'runtime',
  provider: 'provider',
  model: 'model',
  requested_model: 'requested_model',
  model_deployment: 'model_deployment',
  protocol: 'protocol',
  key: 'key_id',
  repo: 'repo',
  label: 'label.value',
  trigger: 'trigger',
  tool: 'tool',
};
const LABELS = 'LEFT JOIN LATERAL jsonb_array_elements_text(ledger.labels) AS label (value) ON true';
const INTEGERS: ReadonlySet<UsageDimension> = new Set(['agent_version', 'turn', 'step']);

const SUMS = `count(*)::bigint AS calls, count(*) FILTER (WHERE error IS NOT NULL)::bigint AS errors,
  count(*) FILTER (WHERE cost_micros IS NULL)::bigint AS unpriced_calls,
  count(*) FILTER (WHERE usage_basis = 'estimated')::bigint AS estimated_calls,
  ${[
    'input_tokens',
    'cache_read_tokens',
    'cache_write_5m_tokens',
    'cache_write_1h_tokens',
    'output_tokens',
    'reasoning_tokens',
    'web_searches',
    'cost_micros',
  ]
    .map((column) => `coalesce(sum(${column}), 0)::bigint AS ${column}`)
    .join(', ')}`;

/** The rows of a scope; with `byLabel`, one for each label of a call. */
export function scopeFilter(scope: UsageScope, byLabel: boolean): Filter {
  const filter = new Filter()
    .add('team_id = ?', scope.teamId)
    .add('created_at >= ?', scope.from)
    .add('created_at < ?', scope.to);
  for (const [name, value] of Object.entries(scope.filters) as [UsageDimension, string | number | undefined][]) {
    if (name !== 'label') filter.add(`${DIMENSION_COLUMNS[name]} = ?`, value);
    else if (value !== undefined) {
      // The second condition says what the first implies: the index of labelled calls asks for it.
      filter.add('labels @> ?::jsonb', JSON.stringify([value])).addFixed(`labels <> '[]'`);
      if (byLabel) filter.add('label.value = ?', value);
    }
  }
  return filter;
}

/** What was used in all. */
export async function usageTotals(db: Queryable, scope: UsageScope): Promise<UsageSums> {
  const { conditions, params } = scopeFilter(scope, false);
  const result = await db.query(`SELECT ${SUMS} FROM ledger WHERE ${conditions.join(' AND ')}`, params);
  return toCamel<UsageSums>(result.rows[0] as object);
}

/** What was used by each group, a page of them. */
export async function usageByGroup(
  db: Queryable,
  scope: UsageScope,
  grouping: UsageGrouping,
  page: { limit: number; cursor: string | undefined },
): Promise<{ data: UsageGroup[]; nextPage: string | null }> {
  const { groupBy, bucket, sort } = grouping;
  const byLabel = groupBy.includes('label');
  const { conditions, params } = scopeFilter(scope, byLabel);
  const columns = groupBy.map((name) => `${DIMENSION_COLUMNS[name]} AS g_${name}`);
  // Not a parameter: the expression must be the same in the list and in GROUP BY.
  const start = bucket === undefined ? 'NULL::timestamp' : `date_trunc('${bucket}', created_at AT TIME ZONE 'UTC')`;
  const inner = `SELECT ${[`${start} AS bucket_start`, ...columns, SUMS].join(', ')}
    FROM ledger ${byLabel ? LABELS : ''} WHERE ${conditions.join(' AND ')}
    GROUP BY ${[start, ...groupBy.map((name) => DIMENSION_COLUMNS[name])].join(', ')}`;
  const keys = [
    sortKey(sort),
    `coalesce(to_char(bucket_start, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '')`,
    ...groupBy.map(groupKey),
  ];
  const after = page.cursor === undefined ? undefined : decodeCursor(page.cursor, keys.length);
  const where = after === undefined ? '' : `WHERE (${keys.join(', ')}) > (${placeholders(params, after)})`;
  params.push(page.limit + 1);
  const result = await db.query<Record<string, unknown> & { keys: string[] }>(
    `SELECT *, jsonb_build_array(${keys.join(', ')}) AS keys FROM (${inner}) AS grouped ${where}
     ORDER BY ${keys.join(', ')} LIMIT $${params.length}`,
    params,
  );
  const rows = result.rows.slice(0, page.limit);
  const last = rows.at(-1);
  return {
    data: rows.map((row) => groupOf(row, groupBy)),
    nextPage: result.rows.length > page.limit && last !== undefined ? encodeCursor(last.keys) : null,
  };
}

function groupOf(row: Record<string, unknown> & { keys: string[] }, groupBy: readonly UsageDimension[]): UsageGroup {
  const { keys, bucket_start: bucketStart, ...rest } = row;
  const group = Object.fromEntries(groupBy.map((name) => [name, rest[`g_${name}`]])) as UsageGroup['group'];
  const sums = Object.fromEntries(Object.entries(rest).filter(([name]) => !name.startsWith('g_')));
  return { ...toCamel<UsageSums>(sums), group, bucketStart: bucketStart === null ? null : (keys[1] ?? null) };
}

/** All keys ascend, so that one comparison of rows continues a list; the most comes first by its negative. */
function sortKey(sort: UsageSort): string {
  return { group: '0::bigint', cost: '-cost_micros', calls: '-calls' }[sort];
}

function groupKey(name: UsageDimension): string {
  const text = INTEGERS.has(name) ? `lpad(g_${name}::text, 10, '0')` : `g_${name}`;
  return `coalesce(${text}, '') COLLATE "C"`;
}

function placeholders(params: unknown[], values: unknown[]): string {
  return values
    .map((value, index) => {
      params.push(value);
      return index === 0 ? `$${params.length}::bigint` : `$${params.length}::text`;
    })
    .join(', ');
}

function encodeCursor(keys: unknown[]): string {
  return Buffer.from(JSON.stringify(keys)).toString('base64url');
}

function decodeCursor(text: string, length: number): unknown[] {
  try {
    const keys: unknown = JSON.parse(Buffer.from(text, 'base64url').toString());
    if (Array.isArray(keys) && keys.length === length) {
      const [sum, ...rest] = keys as unknown[];
      if (Number.isSafeInteger(sum) && rest.every((key) => typeof key === 'string' && !key.includes('\0'))) return keys;
    }
  } catch {
    // Said below.
  }
  throw new LonghaulError('invalid_request', 'is not a cursor this list gave', { field: 'page' });
}
