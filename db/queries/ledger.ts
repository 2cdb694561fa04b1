import type { Attribution } from '../../contracts/attribution.ts';
import type { Usage } from '../../contracts/definitions.ts';
import type { Queryable } from '../pool.ts';

/** One model call as the ledger keeps it. */
export interface LedgerEntry {
  id: string;
  /** `session/turn/step` of a native model step, else the entry's own id. */
  callKey: string;
  attribution: Attribution;
  turn: number | null;
  step: number | null;
  virtualKeyId: string | null;
  protocol: string;
  provider: string;
  model: string;
  requestedModel: string;
  modelDeployment: string | null;
  usage: Usage;
  /** null: the model has no price. */
  costMicros: number | null;
  usageBasis: 'reported' | 'estimated' | 'none';
  ttftMs: number | null;
  latencyMs: number;
  httpStatus: number | null;
  error: string | null;
}

const INSERT = `INSERT INTO ledger (id, call_key, team_id, user_id, session_id, turn, step, agent_id, agent_version,
   virtual_key_id, protocol, provider, model, input_tokens, cache_read_tokens, cache_write_5m_tokens,
   cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_micros, usage_basis, ttft_ms, latency_ms,
   http_status, error, root_session_id, thread_id, deployment_id, harness, runtime, repo, labels, trigger,
   model_deployment, requested_model)
   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
   $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35)
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
   WHERE ledger.id <> excluded.id`;

/**
 * Writes the one row of a call. A call that was cut after tokens were billed and then made again under the same
 * key has paid twice: its row adds both up instead of losing one. The same entry again (a commit whose answer was lost)
 * changes nothing.
 */
export async function recordLedgerEntry(db: Queryable, entry: LedgerEntry): Promise<void> {
  await db.query(INSERT, valuesOf(entry));
}

function valuesOf(entry: LedgerEntry): unknown[] {
  const { usage, attribution } = entry;
  return [
    entry.id,
    entry.callKey,
    attribution.teamId,
    attribution.userId,
    attribution.sessionId,
    entry.turn,
    entry.step,
    attribution.agentId,
    attribution.agentVersion,
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
    attribution.rootSessionId,
    attribution.threadId,
    attribution.deploymentId,
    attribution.harness,
    attribution.runtime,
    attribution.repo,
    JSON.stringify(attribution.labels),
    attribution.trigger,
    entry.modelDeployment,
    entry.requestedModel,
  ];
}
