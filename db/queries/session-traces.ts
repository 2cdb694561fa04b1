import type { Attempt } from '../../contracts/routing.ts';
import type { ApprovalDecision, ApprovalKind, ApprovalState, EffectState } from '../../contracts/states.ts';
import type { StopReason, TurnState } from '../../contracts/states.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** A turn's own place is step -1, so that a turn without a step is there, too. */
const TURN_ITSELF = -1;
const MAX_MARKS = 5_000;
const MAX_APPROVALS = 1_000;

/** A place in a session's tree; pages are cut between places. */
export interface TracePlace {
  turn: number;
  step: number;
}

export interface TraceTurnRow {
  turn: number;
  state: TurnState;
  model: string;
  stopReason: StopReason | null;
  startedAt: Date;
  endedAt: Date | null;
}

export interface TraceStepRow extends TracePlace {
  stopReason: string;
}

export interface TraceCallRow {
  id: string;
  callKey: string;
  turn: number | null;
  step: number | null;
  provider: string;
  model: string;
  requestedModel: string | null;
  modelDeployment: string | null;
  protocol: string;
  harness: string | null;
  inputTokens: number;
  cacheReadTokens: number;
  cacheWriteTokens: number;
  outputTokens: number;
  reasoningTokens: number;
  usageBasis: 'reported' | 'estimated' | 'none';
  costMicros: number | null;
  ttftMs: number | null;
  latencyMs: number;
  cache: 'hit' | null;
  httpStatus: number | null;
  error: string | null;
  attempts: Attempt[] | null;
  createdAt: Date;
}

export interface TraceEffectRow extends TracePlace {
  id: string;
  tool: string;
  toolUseId: string;
  state: EffectState;
  verdict: string;
  generation: number;
  sandboxId: string | null;
  startedAt: Date | null;
  endedAt: Date | null;
}

export interface TraceApprovalRow {
  id: string;
  effectId: string;
  kind: ApprovalKind;
  state: ApprovalState;
  decision: ApprovalDecision | null;
  createdAt: Date;
  decidedAt: Date | null;
}

export interface TraceMarkRow {
  kind: 'paused' | 'running';
  at: Date;
  /** Of a pause. */
  turn: number | null;
  step: number | null;
}

export interface TracePage {
  places: TracePlace[];
  nextPage: string | null;
  turns: TraceTurnRow[];
  steps: TraceStepRow[];
  calls: TraceCallRow[];
  effects: TraceEffectRow[];
  approvals: TraceApprovalRow[];
  marks: TraceMarkRow[];
}

/** One page of a session's tree, from the record alone. */
export async function readTracePage(
  db: Queryable,
  sessionId: string,
  page: { limit: number; cursor: string | undefined },
): Promise<TracePage> {
  const after = page.cursor === undefined ? { turn: 0, step: TURN_ITSELF - 1 } : decodeCursor(page.cursor);
  const found = await db.query<TracePlace>(
    `SELECT turn, step FROM (
       SELECT turn, ${TURN_ITSELF} AS step FROM turns WHERE session_id = $1
       UNION SELECT turn, step FROM steps WHERE session_id = $1
       UNION SELECT turn, step FROM effects WHERE session_id = $1
       UNION SELECT turn, step FROM ledger WHERE session_id = $1 AND turn IS NOT NULL AND step IS NOT NULL) AS place
     WHERE (turn, step) > ($2, $3) ORDER BY turn, step LIMIT $4`,
    [sessionId, after.turn, after.step, page.limit + 1],
  );
  const places = found.rows.slice(0, page.limit);
  const [first, last] = [places[0], places.at(-1)];
  const nextPage = found.rows.length > page.limit && last !== undefined ? encodeCursor(last) : null;
  if (first === undefined || last === undefined) {
    return { places, nextPage, turns: [], steps: [], calls: [], effects: [], approvals: [], marks: [] };
  }
  const range = [sessionId, first.turn, first.step, last.turn, last.step];
  const [turns, steps, calls, effects] = await Promise.all([
    rows<TraceTurnRow>(
      db,
      `SELECT turn, state, model, stop_reason, started_at, ended_at FROM turns
       WHERE session_id = $1 AND turn BETWEEN $2 AND $3 ORDER BY turn`,
      [sessionId, first.turn, last.turn],
    ),
    rows<TraceStepRow>(db, `SELECT turn, step, stop_reason FROM steps WHERE ${IN_RANGE} ORDER BY turn, step`, range),
    rows<TraceCallRow>(db, `${CALL} WHERE ${IN_RANGE} ORDER BY turn, step`, range),
    rows<TraceEffectRow>(
      db,
      `SELECT id, turn, step, tool, tool_use_id, state, verdict, generation, sandbox_id, started_at, ended_at
       FROM effects WHERE ${IN_RANGE} AND position < ${LIMITS.toolCallsPerStep} ORDER BY turn, step, position`,
      range,
    ),
  ]);
  const [approvals, marks] = await Promise.all([
    rows<TraceApprovalRow>(
      db,
      `SELECT id, effect_id, kind, state, decision, created_at, decided_at FROM approvals
       WHERE session_id = $1 AND effect_id = ANY($2) ORDER BY created_at LIMIT ${MAX_APPROVALS}`,
      [sessionId, effects.map(({ id }) => id)],
    ),
    readMarks(db, sessionId, turns),
  ]);
  return { places, nextPage, turns, steps, calls, effects, approvals, marks };
}

/** Calls with the session's key that belong to no step, newest first. */
export async function listOtherCalls(db: Queryable, sessionId: string, limit: number): Promise<TraceCallRow[]> {
  return rows<TraceCallRow>(
    db,
    `${CALL} WHERE session_id = $1 AND (turn IS NULL OR step IS NULL) ORDER BY created_at DESC, id DESC LIMIT $2`,
    [sessionId, limit],
  );
}

const IN_RANGE = '(session_id, turn, step) BETWEEN ($1, $2, $3) AND ($1, $4, $5)';
const CALL = `SELECT id, call_key, turn, step, provider, model, requested_model, model_deployment, protocol, harness,
  input_tokens, cache_read_tokens, cache_write_5m_tokens + cache_write_1h_tokens AS cache_write_tokens, output_tokens,
  reasoning_tokens, usage_basis, cost_micros, ttft_ms, latency_ms, cache, http_status, error,
  attempts, created_at FROM ledger`;

/** Where the log says that these turns waited, and that the session ran. */
async function readMarks(db: Queryable, sessionId: string, turns: TraceTurnRow[]): Promise<TraceMarkRow[]> {
  const [first, last] = [turns[0], turns.at(-1)];
  if (first === undefined || last === undefined) return [];
  const found = await db.query<{ type: string; dedupe_key: string | null; created_at: Date }>(
    `SELECT type, dedupe_key, created_at FROM events
     WHERE session_id = $1 AND type IN ('session.status_idle', 'session.status_running')
       AND created_at >= $2 AND created_at <= coalesce($3, now())
     ORDER BY seq LIMIT ${MAX_MARKS}`,
    // A Date has lost the microseconds.
    [sessionId, first.startedAt, last.endedAt && new Date(last.endedAt.getTime() + 1)],
  );
  return found.rows.flatMap((row): TraceMarkRow[] => {
    const at = row.created_at;
    if (row.type === 'session.status_running') return [{ kind: 'running', at, turn: null, step: null }];
    const [, turn, step] = /^pause\/(\d+)\/(\d+)\//.exec(row.dedupe_key ?? '') ?? [];
    return turn === undefined ? [] : [{ kind: 'paused', at, turn: Number(turn), step: Number(step) }];
  });
}

async function rows<T extends object>(db: Queryable, sql: string, params: unknown[]): Promise<T[]> {
  const result = await db.query<object>(sql, params);
  return result.rows.map((row) => toCamel<T>(row));
}

function encodeCursor({ turn, step }: TracePlace): string {
  return Buffer.from(`t|${turn}|${step}`).toString('base64url');
}

function decodeCursor(text: string): TracePlace {
  const [, turn, step] = /^t\|(\d{1,9})\|(-?\d{1,9})$/.exec(Buffer.from(text, 'base64url').toString()) ?? [];
  if (turn === undefined || step === undefined) {
    throw new LonghaulError('invalid_request', 'is not a cursor this list gave', { field: 'page' });
  }
  return { turn: Number(turn), step: Number(step) };
}
