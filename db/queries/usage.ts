import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Sums over the ledger. `costMicros` is null when any call had no price. */
export interface UsageSum {
  calls: number;
  inputTokens: number;
  outputTokens: number;
  cacheReadTokens: number;
  cacheWrite5mTokens: number;
  cacheWrite1hTokens: number;
  costMicros: number | null;
}

const SUMS = `count(*)::bigint AS calls, sum(input_tokens)::bigint AS input_tokens,
  sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
  sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens, sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens,
  CASE WHEN bool_and(cost_micros IS NOT NULL) THEN sum(cost_micros)::bigint END AS cost_micros`;

export const NO_USAGE: UsageSum = {
  calls: 0,
  inputTokens: 0,
  outputTokens: 0,
  cacheReadTokens: 0,
  cacheWrite5mTokens: 0,
  cacheWrite1hTokens: 0,
  costMicros: 0,
};

/** Usage of each session that has any. */
export async function usageOfSessions(db: Queryable, sessionIds: string[]): Promise<Map<string, UsageSum>> {
  if (sessionIds.length === 0) return new Map();
  const result = await db.query<{ session_id: string }>(
    `SELECT session_id, ${SUMS} FROM ledger WHERE session_id = ANY($1) GROUP BY session_id`,
    [sessionIds],
  );
  return new Map(result.rows.map((row) => [row.session_id, toCamel<UsageSum>(row)]));
}

/** What a session spent, with each model's share. */
export async function usageByModel(
  db: Queryable,
  sessionId: string,
): Promise<(UsageSum & { model: string; provider: string })[]> {
  const result = await db.query(
    `SELECT model, provider, ${SUMS} FROM ledger WHERE session_id = $1 GROUP BY model, provider ORDER BY model, provider`,
    [sessionId],
  );
  return result.rows.map((row) => toCamel<UsageSum & { model: string; provider: string }>(row as object));
}
