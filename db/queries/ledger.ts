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

const COLUMNS = `id, call_key, team_id, user_id, session_id, turn, step, agent_id, agent_version, virtual_key_id, protocol,
   provider, model, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
   reasoning_tokens, cost_micros, usage_basis, ttft_ms, latency_ms, http_status, error, root_session_id, thread_id,
   deployment_id, harness, runtime, repo, labels, trigger, model_deployment, requested_model`;

const INSERT = `INSERT INTO ledger (${COLUMNS})
   SELECT ${COLUMNS} FROM jsonb_populate_recordset(NULL::ledger, $1::jsonb)
   ON CONFLICT (call_key) DO UPDATE SET
   id = excluded.id,
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
   WHERE ledger.id <> excluded.id
   RETURNING id`;

/**
 * Writes the rows of calls, each with a call key of its own. A call that was cut after tokens were billed and then made
 * again under the same key has paid twice: its row adds both up instead of losing one, and has the id of the last. The
 * same entry again (a commit whose answer was lost) changes nothing. Returns the ids of the entries that were new.
 */
export async function recordLedgerEntries(db: Queryable, entries: readonly LedgerEntry[]): Promise<Set<string>> {
  const result = await db.query<{ id: string }>(INSERT, [JSON.stringify(entries.map(rowOf))]);
  return new Set(result.rows.map((row) => row.id));
}

function rowOf(entry: LedgerEntry): Record<string, unknown> {
  const { usage, attribution } = entry;
  return {
    id: entry.id,
    call_key: entry.callKey,
    team_id: attribution.teamId,
    user_id: attribution.userId,
    session_id: attribution.sessionId,
    turn: entry.turn,
    step: entry.step,
    agent_id: attribution.agentId,
    agent_version: attribution.agentVersion,
    virtual_key_id: entry.virtualKeyId,
    protocol: entry.protocol,
    provider: entry.provider,
    model: entry.model,
    input_tokens: usage.inputTokens,
    cache_read_tokens: usage.cacheReadTokens,
    cache_write_5m_tokens: usage.cacheWrite5mTokens,
    cache_write_1h_tokens: usage.cacheWrite1hTokens,
    output_tokens: usage.outputTokens,
    reasoning_tokens: usage.reasoningTokens,
    cost_micros: entry.costMicros,
    usage_basis: entry.usageBasis,
    ttft_ms: entry.ttftMs,
    latency_ms: entry.latencyMs,
    http_status: entry.httpStatus,
    error: entry.error,
    root_session_id: attribution.rootSessionId,
    thread_id: attribution.threadId,
    deployment_id: attribution.deploymentId,
    harness: attribution.harness,
    runtime: attribution.runtime,
    repo: attribution.repo,
    labels: attribution.labels,
    trigger: attribution.trigger,
    model_deployment: entry.modelDeployment,
    requested_model: entry.requestedModel,
  };
}
