import type { ContentBlock } from '../../contracts/definitions.ts';
import type { CallExecutor, HarnessName, Placement } from '../../contracts/harnesses.ts';
import type { EffectState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { EffectResult } from './effects.ts';

export interface HarnessPlace {
  sessionId: string;
  turn: number;
  attempt: number;
}

/** What an attempt at a turn finds of those before it. */
export interface BegunAttempt {
  token: Record<string, unknown> | null;
  /** No attempt has begun this turn before. */
  isFirst: boolean;
  /** This very attempt has begun before: its worker is gone. */
  isRepeated: boolean;
}

/** Writes that an attempt begins; the caller holds the lock of the session. */
export async function beginAttempt(
  tx: Queryable,
  place: HarnessPlace,
  harness: { name: HarnessName; placement: Placement },
): Promise<BegunAttempt> {
  const found = await tx.query<{ token: Record<string, unknown> | null; turn: number; attempt: number }>(
    'SELECT token, turn, attempt FROM harness_sessions WHERE session_id = $1',
    [place.sessionId],
  );
  const before = found.rows[0];
  await tx.query(
    `INSERT INTO harness_sessions AS h (session_id, harness, placement, turn, attempt, epoch)
     VALUES ($1, $2, $3, $4, $5, 1)
     ON CONFLICT (session_id) DO UPDATE SET epoch = CASE WHEN h.turn = excluded.turn THEN h.epoch ELSE 1 END,
       wish = CASE WHEN h.turn = excluded.turn AND h.attempt = excluded.attempt THEN h.wish END,
       turn = excluded.turn, attempt = excluded.attempt, updated_at = now()`,
    [place.sessionId, harness.name, harness.placement, place.turn, place.attempt],
  );
  const isFirst = before?.turn !== place.turn;
  return { token: before?.token ?? null, isFirst, isRepeated: !isFirst && before?.attempt === place.attempt };
}

/** The harness begins anew: calls of its lives before are those it may make again. */
export async function beginEpoch(tx: Queryable, sessionId: string): Promise<void> {
  await tx.query('UPDATE harness_sessions SET epoch = epoch + 1, updated_at = now() WHERE session_id = $1', [
    sessionId,
  ]);
}

export async function findHarnessToken(db: Queryable, sessionId: string): Promise<Record<string, unknown> | null> {
  const result = await db.query<{ token: Record<string, unknown> | null }>(
    'SELECT token FROM harness_sessions WHERE session_id = $1',
    [sessionId],
  );
  return result.rows[0]?.token ?? null;
}

/** What another process needs to find the session of the harness again. */
export async function saveHarnessToken(
  db: Queryable,
  sessionId: string,
  token: Record<string, unknown>,
  harnessSessionId?: string,
): Promise<void> {
  await db.query(
    `UPDATE harness_sessions SET token = $2, harness_session_id = coalesce($3, harness_session_id), updated_at = now()
     WHERE session_id = $1`,
    [sessionId, JSON.stringify(token), harnessSessionId ?? null],
  );
}

/** The harness's own state as of the end of a turn; an older turn's comes too late. */
export async function saveHarnessState(
  db: Queryable,
  sessionId: string,
  turn: number,
  state: Uint8Array,
): Promise<void> {
  await db.query(
    `UPDATE harness_sessions SET state = $3, exported_turn = $2, updated_at = now()
     WHERE session_id = $1 AND coalesce(exported_turn, 0) <= $2`,
    [sessionId, turn, state],
  );
}

/** The harness's own state as it was exported last, if that was at the end of a later turn than `afterTurn`. */
export async function readHarnessState(
  db: Queryable,
  sessionId: string,
  afterTurn: number,
): Promise<{ state: Uint8Array; turn: number } | undefined> {
  const result = await db.query<{ state: Buffer; turn: number }>(
    `SELECT state, exported_turn AS turn FROM harness_sessions
     WHERE session_id = $1 AND exported_turn > $2 AND state IS NOT NULL`,
    [sessionId, afterTurn],
  );
  return result.rows[0];
}

export type AttemptWish = 'park' | 'detach';

/** Asks the attempt to let go; one that is over does not hear it. */
export async function setWish(db: Queryable, place: HarnessPlace, wish: AttemptWish): Promise<void> {
  await db.query('UPDATE harness_sessions SET wish = $4 WHERE session_id = $1 AND turn = $2 AND attempt = $3', [
    place.sessionId,
    place.turn,
    place.attempt,
    wish,
  ]);
}

/** What who watches over an attempt looks at. */
export interface AttemptWatch {
  wish: AttemptWish | null;
  /** Calls of this life of the harness that wait for people. */
  waiting: number;
  /** Those that somebody works on. */
  working: number;
}

export async function watchAttempt(db: Queryable, place: HarnessPlace): Promise<AttemptWatch> {
  const result = await db.query(
    `SELECT (SELECT wish FROM harness_sessions WHERE session_id = $1 AND turn = $2 AND attempt = $3) AS wish,
       count(*) FILTER (WHERE e.state IN ('waiting', 'unknown'))::int AS waiting,
       count(*) FILTER (WHERE e.state IN ('proposed', 'allowed', 'started')
         OR (e.id IS NULL AND c.created_at > now() - interval '1 minute'))::int AS working
     FROM harness_calls c LEFT JOIN effects e ON e.id = c.effect_id
     WHERE c.session_id = $1 AND c.turn = $2
       AND c.epoch = (SELECT epoch FROM harness_sessions WHERE session_id = $1)`,
    [place.sessionId, place.turn, place.attempt],
  );
  return toCamel<AttemptWatch>(result.rows[0] as object);
}

/** A call whose asker is gone: what it was, and what became of it. */
export interface OrphanedCall {
  id: string;
  effectId: string;
  executor: CallExecutor;
  tool: string;
  input: Record<string, unknown>;
  state: EffectState;
  idempotent: boolean;
  result: EffectResult | null;
}

/** Calls of earlier lives of the harness in this turn whose results it never got, oldest first. */
export async function listOrphanedCalls(
  db: Queryable,
  sessionId: string,
  turn: number,
  limit: number,
): Promise<OrphanedCall[]> {
  const result = await db.query(
    `SELECT c.id, c.effect_id, c.executor, c.tool, e.input, e.state, e.idempotent, e.result
     FROM harness_calls c JOIN effects e ON e.id = c.effect_id
       JOIN harness_sessions h ON h.session_id = c.session_id
     WHERE c.session_id = $1 AND c.turn = $2 AND c.epoch < h.epoch AND c.delivered_at IS NULL
     ORDER BY c.created_at, c.id LIMIT $3`,
    [sessionId, turn, limit],
  );
  return result.rows.map((row) => toCamel<OrphanedCall>(row as object));
}

/** Messages of a turn, as they were sent. */
export async function listTurnContent(db: Queryable, sessionId: string, turn: number): Promise<ContentBlock[]> {
  const result = await db.query<{ content: ContentBlock[] }>(
    `SELECT e.payload -> 'content' AS content FROM inputs i JOIN events e ON e.id = i.event_id
     WHERE i.session_id = $1 AND i.turn = $2 AND i.kind = 'message' ORDER BY e.seq`,
    [sessionId, turn],
  );
  return result.rows.flatMap((row) => row.content);
}
