import type { Attribution } from '../../contracts/attribution.ts';
import type { Usage } from '../../contracts/definitions.ts';
import type { Attempt } from '../../contracts/routing.ts';
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
  /** The answer was given before, and is given again for nothing. */
  cache?: 'hit';
  ttftMs: number | null;
  latencyMs: number;
  httpStatus: number | null;
  error: string | null;
  /** Who was asked, in order; absent or empty when the first one answered. */
  attempts?: readonly Attempt[];
}

const COLUMNS = [
  'id',
  'call_key',
  'team_id',
  'user_id',
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
  'virtual_key_id',
  'key_id',
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
  'cache',
  'attempts',
] as const;
type Column = (typeof COLUMNS)[number];

const SUMMED: readonly Column[] = [
  'input_tokens',
  'cache_read_tokens',
  'cache_write_5m_tokens',
  'cache_write_1h_tokens',
  'output_tokens',
  'reasoning_tokens',
  'web_searches',
  'cost_micros',
];
const REPLACED: readonly Column[] = ['ttft_ms', 'latency_ms', 'http_status', 'error'];

const NAMES = COLUMNS.join(', ');

const INSERT = `INSERT INTO ledger (${NAMES})
   SELECT ${NAMES} FROM jsonb_populate_recordset(NULL::ledger, $1::jsonb)
   ON CONFLICT (call_key) DO UPDATE SET
   ${SUMMED.map((name) => `${name} = ledger.${name} + excluded.${name}`).join(', ')},
   usage_basis = CASE WHEN 'estimated' IN (ledger.usage_basis, excluded.usage_basis) THEN 'estimated'
     WHEN 'reported' IN (ledger.usage_basis, excluded.usage_basis) THEN 'reported' ELSE 'none' END,
   ${REPLACED.map((name) => `${name} = CASE WHEN ledger.error IS NULL THEN ledger.${name} ELSE excluded.${name} END`).join(', ')},
   attempts = CASE WHEN ledger.attempts IS NULL THEN excluded.attempts
     ELSE ledger.attempts || coalesce(excluded.attempts, '[]') END,
   merged_ids = ledger.merged_ids || to_jsonb(excluded.id)
   WHERE ledger.id <> excluded.id AND NOT ledger.merged_ids ? excluded.id
   RETURNING call_key`;

/**
 * Writes the one row of each call. A call that was cut after tokens were billed and then made again under the same
 * key has paid twice: its row adds both up instead of losing one. An entry that is in the ledger already (the answer to a
 * commit was lost) changes nothing. What was answered stays so, whatever is learnt later of an attempt that was lost.
 * Returns the ids of the entries that were new.
 */
export async function recordLedgerEntries(db: Queryable, entries: readonly LedgerEntry[]): Promise<Set<string>> {
  const recorded = new Set<string>();
  for (const round of byUniqueKey(entries)) {
    const rows = JSON.stringify(Array.from(round.values(), rowOf));
    const result = await db.query<{ call_key: string }>(INSERT, [rows]);
    for (const { call_key: key } of result.rows) {
      const entry = round.get(key);
      if (entry !== undefined) recorded.add(entry.id);
    }
  }
  return recorded;
}

/** One statement may meet each key once only. */
function byUniqueKey(entries: readonly LedgerEntry[]): Map<string, LedgerEntry>[] {
  const rounds: Map<string, LedgerEntry>[] = [];
  for (const entry of entries) {
    let round = rounds.find((map) => !map.has(entry.callKey));
    if (round === undefined) rounds.push((round = new Map()));
    round.set(entry.callKey, entry);
  }
  return rounds;
}

function rowOf(entry: LedgerEntry): Record<Column, unknown> {
  const { usage, attribution } = entry;
  return {
    id: entry.id,
    call_key: entry.callKey,
    team_id: attribution.teamId,
    user_id: attribution.userId,
    session_id: attribution.sessionId,
    root_session_id: attribution.rootSessionId,
    thread_id: attribution.threadId,
    turn: entry.turn,
    step: entry.step,
    agent_id: attribution.agentId,
    agent_version: attribution.agentVersion,
    deployment_id: attribution.deploymentId,
    harness: attribution.harness,
    runtime: attribution.runtime,
    repo: attribution.repo,
    labels: attribution.labels,
    trigger: attribution.trigger,
    virtual_key_id: entry.virtualKeyId,
    key_id: attribution.keyId,
    protocol: entry.protocol,
    provider: entry.provider,
    model: entry.model,
    requested_model: entry.requestedModel,
    model_deployment: entry.modelDeployment,
    input_tokens: usage.inputTokens,
    cache_read_tokens: usage.cacheReadTokens,
    cache_write_5m_tokens: usage.cacheWrite5mTokens,
    cache_write_1h_tokens: usage.cacheWrite1hTokens,
    output_tokens: usage.outputTokens,
    reasoning_tokens: usage.reasoningTokens,
    web_searches: usage.webSearches ?? 0,
    cost_micros: entry.costMicros,
    usage_basis: entry.usageBasis,
    ttft_ms: entry.ttftMs,
    latency_ms: entry.latencyMs,
    http_status: entry.httpStatus,
    error: entry.error,
    cache: entry.cache ?? null,
    attempts: entry.attempts?.length ? entry.attempts : null,
  };
}
