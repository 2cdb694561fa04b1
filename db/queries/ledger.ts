import type { Usage } from '../../contracts/definitions.ts';
import type { Queryable } from '../pool.ts';

/** One model call as the ledger keeps it. */
export interface LedgerEntry {
  id: string;
  /** `session/turn/step` of a native model step, else the entry's own id. */
  callKey: string;
  teamId: string;
  userId: string;
  sessionId: string | null;
  turn: number | null;
  step: number | null;
  agentId: string | null;
  agentVersion: number | null;
  virtualKeyId: string | null;
  protocol: string;
  provider: string;
  model: string;
  usage: Usage;
  /** null: the model has no price. */
  costMicros: number | null;
  usageBasis: 'reported' | 'estimated' | 'none';
  ttftMs: number | null;
  latencyMs: number;
  httpStatus: number | null;
  error: string | null;
}

/**
 * Writes the one row of a call. A call that was cut after tokens were billed and then made again under the same
 * key has paid twice: its row adds both up instead of losing one. The same entry again (a commit whose answer was lost)
 * changes nothing.
 */
export async function recordLedgerEntry(db: Queryable, entry: LedgerEntry): Promise<void> {
  const { usage } = entry;
  await db.query(
    `INSERT INTO ledger (id, call_key, team_id, user_id, session_id, turn, step, agent_id, agent_version,
       virtual_key_id, protocol, provider, model, input_tokens, cache_read_tokens, cache_write_5m_tokens,
       cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_micros, usage_basis, ttft_ms, latency_ms,
       http_status, error)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
       $23, $24, $25)
     ON CONFLICT (call_key) DO UPDATE SET
       input_tokens = ledger.input_tokens + excluded.input_tokens,
       cache_read_tokens = ledger.cache_read_tokens + excluded.cache_read_tokens,
       cache_write_5m_tokens = ledger.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
       cache_write_1h_tokens = ledger.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
       output_tokens = ledger.output_tokens + excluded.output_tokens,
       reasoning_tokens = ledger.reasoning_tokens + excluded.reasoning_tokens,
       cost_micros = ledger.cost_micros + excluded.cost_micros,
       usage_basis = CASE WHEN ledger.usage_basis = 'reported' THEN excluded.usage_basis ELSE ledger.usage_basis END,
       ttft_ms = excluded.ttft_ms, latency_ms = excluded.latency_ms, http_status = excluded.http_status,
       error = excluded.error
       WHERE ledger.id <> excluded.id`,
    [
      entry.id,
      entry.callKey,
      entry.teamId,
      entry.userId,
      entry.sessionId,
      entry.turn,
      entry.step,
      entry.agentId,
      entry.agentVersion,
      entry.virtualKeyId,
      entry.protocol,
      entry.provider,
      entry.model,
      usage.inputTokens,
      usage.cacheReadTokens,
      usage.cacheWrite5mTokens,
      usage.cacheWrite1hTokens,
      usage.outputTokens,
      usage.reasoningTokens,
      entry.costMicros,
      entry.usageBasis,
      entry.ttftMs,
      entry.latencyMs,
      entry.httpStatus,
      entry.error,
    ],
  );
}
