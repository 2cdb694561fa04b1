import type { Usage } from '../../contracts/definitions.ts';
import type { StopReason, StopReasonType, TurnState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Opens a turn; a retried activity finds it open. */
export async function openTurn(tx: Queryable, sessionId: string, turn: number, model: string): Promise<void> {
  await tx.query(
    `INSERT INTO turns (session_id, turn, state, model) VALUES ($1, $2, 'running', $3) ON CONFLICT DO NOTHING`,
    [sessionId, turn, model],
  );
  await tx.query('UPDATE sessions SET current_turn = greatest(current_turn, $2) WHERE id = $1', [sessionId, turn]);
}

/** Locks the turn's row and tells its state; undefined when it was never opened. */
export async function lockTurn(tx: Queryable, sessionId: string, turn: number): Promise<TurnState | undefined> {
  const result = await tx.query<{ state: TurnState }>(
    'SELECT state FROM turns WHERE session_id = $1 AND turn = $2 FOR UPDATE',
    [sessionId, turn],
  );
  return result.rows[0]?.state;
}

/** The model the turn was opened with (model per turn, invariant 7). */
export async function turnModel(db: Queryable, sessionId: string, turn: number): Promise<string | undefined> {
  const result = await db.query<{ model: string }>('SELECT model FROM turns WHERE session_id = $1 AND turn = $2', [
    sessionId,
    turn,
  ]);
  return result.rows[0]?.model;
}

/** Closes a running turn, once. Returns false when it was closed already. */
export async function closeTurn(
  tx: Queryable,
  sessionId: string,
  turn: number,
  state: Exclude<TurnState, 'running'>,
  stopReason: StopReason,
  error?: { code: string; message: string },
): Promise<boolean> {
  const moved = await tx.query(
    `UPDATE turns SET state = $3, stop_reason = $4, error = $5, ended_at = now()
     WHERE session_id = $1 AND turn = $2 AND state = 'running'`,
    [sessionId, turn, state, JSON.stringify(stopReason), error === undefined ? null : JSON.stringify(error)],
  );
  return moved.rowCount !== 0;
}

/** The place of a model call that a harness makes: its turn, and its number among the turn's calls. */
export interface TurnCall {
  turn: number;
  call: number;
}

/**
 * Takes the next place in the session's running turn; undefined when none runs. It waits for a turn that is being ended, so
 * no call is put on a turn after its end, nor on the one before.
 */
export async function takeTurnCall(db: Queryable, sessionId: string): Promise<TurnCall | undefined> {
  const result = await db.query<TurnCall>(
    `UPDATE turns SET model_calls = model_calls + 1
     WHERE session_id = $1 AND state = 'running'
       AND turn = (SELECT max(turn) FROM turns WHERE session_id = $1 AND state = 'running')
     RETURNING turn, model_calls - 1 AS call`,
    [sessionId],
  );
  return result.rows[0];
}

/** Why the turn ended; undefined while it runs (or was never opened). */
export async function turnStop(db: Queryable, sessionId: string, turn: number): Promise<StopReasonType | undefined> {
  const result = await db.query<{ stop_reason: StopReason }>(
    `SELECT stop_reason FROM turns WHERE session_id = $1 AND turn = $2 AND state <> 'running'`,
    [sessionId, turn],
  );
  return result.rows[0]?.stop_reason.type;
}

/** Earlier turns that the record shows as running. */
export async function runningTurnsBefore(tx: Queryable, sessionId: string, turn: number): Promise<number[]> {
  const result = await tx.query<{ turn: number }>(
    `SELECT turn FROM turns WHERE session_id = $1 AND turn < $2 AND state = 'running' ORDER BY turn`,
    [sessionId, turn],
  );
  return result.rows.map((row) => row.turn);
}

/** Assistant content as the native loop keeps it, independent of the provider's protocol. */
export type AssistantBlock =
  | { type: 'text'; text: string }
  | { type: 'thinking'; thinking: string; signature: string }
  | { type: 'redacted_thinking'; data: string }
  | { type: 'tool_use'; id: string; name: string; input: Record<string, unknown> };

export interface StepRow {
  turn: number;
  step: number;
  model: string;
  stopReason: string;
  content: AssistantBlock[];
  usage: Usage;
}

/** One recorded step, if the model was asked already. */
export async function findStep(
  db: Queryable,
  sessionId: string,
  turn: number,
  step: number,
): Promise<StepRow | undefined> {
  const result = await db.query(
    `SELECT turn, step, model, stop_reason, content, usage FROM steps
     WHERE session_id = $1 AND turn = $2 AND step = $3`,
    [sessionId, turn, step],
  );
  return result.rows[0] === undefined ? undefined : toCamel<StepRow>(result.rows[0] as object);
}

/** Records a step. Returns false when another attempt was first. */
export async function insertStep(tx: Queryable, sessionId: string, row: StepRow): Promise<boolean> {
  const inserted = await tx.query(
    `INSERT INTO steps (session_id, turn, step, model, stop_reason, content, usage)
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
    [sessionId, row.turn, row.step, row.model, row.stopReason, JSON.stringify(row.content), JSON.stringify(row.usage)],
  );
  return inserted.rowCount !== 0;
}
