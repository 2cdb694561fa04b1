import type { InputState, StopReason, TurnState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** One turn as a conversation shows it: what it answers, what the ledger says it cost, and where it ends in the log. */
export interface TurnView {
  turn: number;
  state: TurnState;
  model: string;
  stopReason: StopReason | null;
  startedAt: Date;
  endedAt: Date | null;
  /** Of the first and the last message it took; null: none is known. */
  firstInputSeq: number | null;
  lastInputSeq: number | null;
  /** Of the event that says it is over. */
  endSeq: number | null;
  inputTokens: number;
  outputTokens: number;
  reasoningTokens: number;
  cacheReadTokens: number;
  cacheWriteTokens: number;
  costMicros: number;
}

const sum = (column: string): string => `coalesce((SELECT sum(${column}) FROM ledger l
  WHERE l.session_id = t.session_id AND l.turn = t.turn), 0)::bigint`;

/** The newest turns of a session, oldest of them first. */
export async function listTurnViews(db: Queryable, sessionId: string, limit: number): Promise<TurnView[]> {
  const result = await db.query(
    `SELECT t.turn, t.state, t.model, t.stop_reason, t.started_at, t.ended_at, m.first_input_seq, m.last_input_seq,
       (SELECT e.seq FROM events e WHERE e.session_id = t.session_id AND e.dedupe_key = 'turn-end/' || t.turn) AS end_seq,
       ${sum('input_tokens')} AS input_tokens, ${sum('output_tokens')} AS output_tokens,
       ${sum('reasoning_tokens')} AS reasoning_tokens, ${sum('cache_read_tokens')} AS cache_read_tokens,
       ${sum('cache_write_5m_tokens + cache_write_1h_tokens')} AS cache_write_tokens, ${sum('cost_micros')} AS cost_micros
     FROM (SELECT * FROM turns WHERE session_id = $1 ORDER BY turn DESC LIMIT $2) AS t
     LEFT JOIN LATERAL (SELECT min(e.seq) AS first_input_seq, max(e.seq) AS last_input_seq
       FROM inputs i JOIN events e ON e.id = i.event_id
       WHERE i.session_id = t.session_id AND i.kind = 'message' AND i.turn = t.turn) AS m ON true
     ORDER BY t.turn`,
    [sessionId, limit],
  );
  return result.rows.map((row) => toCamel<TurnView>(row as object));
}

/** Where an accepted message is; undefined when no session has it. */
export async function inputPlace(
  db: Queryable,
  eventId: string,
): Promise<{ state: InputState; reason: string | null; turn: number | null } | undefined> {
  const result = await db.query<{ state: InputState; reason: string | null; turn: number | null }>(
    'SELECT state, reason, turn FROM inputs WHERE event_id = $1',
    [eventId],
  );
  return result.rows[0];
}

/** Sessions of a team whose log grew since `since`, those first that did so last; deleted ones, too, for their end is news. */
export async function sessionsChangedSince(
  db: Queryable,
  teamId: string,
  since: Date,
  limit: number,
): Promise<string[]> {
  const result = await db.query<{ id: string }>(
    'SELECT id FROM sessions WHERE team_id = $1 AND updated_at >= $2 ORDER BY updated_at DESC LIMIT $3',
    [teamId, since, limit],
  );
  return result.rows.map((row) => row.id);
}

/** The database's clock: the one that dates events. */
export async function databaseTime(db: Queryable): Promise<Date> {
  const result = await db.query<{ now: Date }>('SELECT now() AS now');
  return result.rows[0]?.now ?? new Date();
}
