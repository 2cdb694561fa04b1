import type { Queryable } from '../pool.ts';
import { scopeFilter, type UsageScope } from './usage-report.ts';

/** A call as the export has it, in this order. */
export const EXPORT_COLUMNS = [
  'created_at',
  'id',
  'user_id',
  'key_id',
  'session_id',
  'root_session_id',
  'thread_id',
  'turn',
  'step',
  'agent_id',
  'agent_version',
  'deployment_id',
  'harness',
  'runtime',
  'repo',
  'labels',
  'trigger',
  'tool',
  'protocol',
  'provider',
  'model',
  'requested_model',
  'model_deployment',
  'input_tokens',
  'cache_read_tokens',
  'cache_write_5m_tokens',
  'cache_write_1h_tokens',
  'output_tokens',
  'reasoning_tokens',
  'web_searches',
  'cost_micros',
  'usage_basis',
  'ttft_ms',
  'latency_ms',
  'http_status',
  'error',
] as const;
export type ExportRow = Record<(typeof EXPORT_COLUMNS)[number], unknown>;

const PAGE_ROWS = 2_000;

/**
 * Every call of the scope, oldest first, page after page: no row is kept, and no connection is held while the reader takes
 * its time.
 */
export async function* exportCalls(db: Queryable, scope: UsageScope): AsyncGenerator<ExportRow[]> {
  let after: { at: string; id: string } | undefined;
  for (;;) {
    const { conditions, params } = scopeFilter(scope, false);
    if (after !== undefined) {
      params.push(after.at, after.id);
      conditions.push(`(ledger.created_at, ledger.id) > ($${params.length - 1}::timestamptz, $${params.length})`);
    }
    const selected = EXPORT_COLUMNS.filter((name) => name !== 'created_at').join(', ');
    // Microseconds as text: a Date would cut them and the next page would repeat or lose rows.
    const result = await db.query<ExportRow>(
      `SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at, ${selected}
       FROM ledger WHERE ${conditions.join(' AND ')}
       ORDER BY ledger.created_at, ledger.id LIMIT ${PAGE_ROWS}`,
      params,
    );
    if (result.rows.length > 0) yield result.rows;
    const last = result.rows.at(-1);
    if (last === undefined || result.rows.length < PAGE_ROWS) return;
    after = { at: String(last.created_at), id: String(last.id) };
  }
}
