import type { InputKind, InputState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';

export interface InputRow {
  eventId: string;
  sessionId: string;
  kind: InputKind;
  /** The `InputMessage` the workflow is sent. */
  message: Record<string, unknown>;
  state: InputState;
  reason: string | null;
  turn: number | null;
}

/** Records accepted inputs beside their event rows, in the same transaction. */
export async function insertInputs(
  tx: Queryable,
  sessionId: string,
  inputs: { eventId: string; kind: InputKind; message: object }[],
): Promise<void> {
  await tx.query(
    `INSERT INTO inputs (event_id, session_id, kind, message)
     SELECT r.event_id, $1, r.kind, r.message
     FROM jsonb_to_recordset($2::jsonb) AS r(event_id text, kind text, message jsonb)`,
    [sessionId, JSON.stringify(inputs.map((i) => ({ event_id: i.eventId, kind: i.kind, message: i.message })))],
  );
}

/** The workflow has them. Inputs a turn took meanwhile stay where they are. */
export async function markDelivered(db: Queryable, eventIds: string[]): Promise<void> {
  await db.query(
    `UPDATE inputs SET state = 'delivered', delivered_at = now() WHERE event_id = ANY($1) AND state = 'accepted'`,
    [eventIds],
  );
}

/** The model that the messages of a turn ask for, if one of them names one. */
export async function inputModel(db: Queryable, eventIds: string[]): Promise<string | undefined> {
  const result = await db.query<{ model: string }>(
    `SELECT message->>'model' AS model FROM inputs WHERE event_id = ANY($1) AND message ? 'model' LIMIT 1`,
    [eventIds],
  );
  return result.rows[0]?.model;
}

/** A turn takes these messages. */
export async function takeInputs(tx: Queryable, sessionId: string, turn: number, eventIds: string[]): Promise<void> {
  await tx.query(
    `UPDATE inputs SET state = 'in_turn', turn = $2, delivered_at = coalesce(delivered_at, now())
     WHERE session_id = $1 AND event_id = ANY($3) AND state IN ('accepted', 'delivered')`,
    [sessionId, turn, eventIds],
  );
}

/** Gives inputs their one terminal state; those that have one keep it. */
export async function endInputs(
  tx: Queryable,
  where: { sessionId: string; eventIds?: string[]; turn?: number },
  state: 'completed' | 'failed' | 'cancelled',
  reason: string,
): Promise<void> {
  await tx.query(
    `UPDATE inputs SET state = $2, reason = $3, ended_at = now()
     WHERE session_id = $1 AND state IN ('accepted', 'delivered', 'in_turn')
       AND ($4::text[] IS NULL OR event_id = ANY($4)) AND ($5::int IS NULL OR (turn = $5 AND state = 'in_turn'))`,
    [where.sessionId, state, reason, where.eventIds ?? null, where.turn ?? null],
  );
}

/** Confirmations whose approval has been settled. */
export async function endApprovalInputs(tx: Queryable, sessionId: string, approvalId: string): Promise<void> {
  await tx.query(
    `UPDATE inputs SET state = 'completed', reason = 'applied', ended_at = now()
     WHERE session_id = $1 AND kind = 'tool_confirmation' AND message->>'approvalId' = $2
       AND state IN ('accepted', 'delivered', 'in_turn')`,
    [sessionId, approvalId],
  );
}

/** Answers to custom tools that a step has read. */
export async function endAnswerInputs(tx: Queryable, sessionId: string): Promise<void> {
  await tx.query(
    `UPDATE inputs SET state = 'completed', reason = 'applied', ended_at = now()
     WHERE session_id = $1 AND kind = 'custom_tool_result' AND state IN ('accepted', 'delivered', 'in_turn')`,
    [sessionId],
  );
}

/** What asked for the end of the session: it has been done. */
export async function endTerminateInputs(tx: Queryable, sessionId: string): Promise<void> {
  await tx.query(
    `UPDATE inputs SET state = 'completed', reason = 'applied', ended_at = now()
     WHERE session_id = $1 AND kind = 'terminate' AND state IN ('accepted', 'delivered', 'in_turn')`,
    [sessionId],
  );
}

/** Confirmations and answers for calls of a turn that is over: nobody will read them any more. */
export async function endTurnAnswers(tx: Queryable, sessionId: string, turn: number, reason: string): Promise<void> {
  await tx.query(
    `UPDATE inputs i SET state = 'cancelled', reason = $3, ended_at = now()
     FROM effects e LEFT JOIN approvals a ON a.effect_id = e.id
     WHERE i.session_id = $1 AND i.state IN ('accepted', 'delivered', 'in_turn') AND e.session_id = $1 AND e.turn = $2
       AND ((i.kind = 'custom_tool_result' AND i.message->>'effectId' = e.id)
         OR (i.kind = 'tool_confirmation' AND i.message->>'approvalId' = a.id))`,
    [sessionId, turn, reason],
  );
}

/** True when a client asked to interrupt this turn and the workflow has not acted on it yet. */
export async function isInterrupted(tx: Queryable, sessionId: string, turn: number): Promise<boolean> {
  const result = await tx.query(
    `SELECT 1 FROM inputs i JOIN events e ON e.id = i.event_id
     WHERE i.session_id = $1 AND i.kind = 'interrupt' AND i.state IN ('accepted', 'delivered')
       AND e.seq > (SELECT max(m.seq) FROM inputs t JOIN events m ON m.id = t.event_id
                    WHERE t.session_id = $1 AND t.kind = 'message' AND t.turn = $2)`,
    [sessionId, turn],
  );
  return result.rowCount !== 0;
}
