import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { CallExecutor } from '../../contracts/harnesses.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { EffectState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { EffectResult } from './effects.ts';

/** A tool call as a harness asked for it; what becomes of it is its effect's. */
export interface HarnessCallRow {
  id: string;
  sessionId: string;
  turn: number;
  /** The life of the harness that asked last. */
  epoch: number;
  harnessCallId: string | null;
  tool: string;
  input: Record<string, unknown>;
  digest: string;
  executor: CallExecutor;
  /** null: the workflow has not planned it yet. */
  effectId: string | null;
  deliveredAt: Date | null;
}

const COLUMNS = `id, session_id, turn, epoch, harness_call_id, tool, input, digest, executor, effect_id, delivered_at`;

export interface HarnessCallDraft {
  sessionId: string;
  executor: CallExecutor;
  tool: string;
  input: Record<string, unknown>;
  /** The harness's own id of the call; the same id is the same call, however often it is asked. */
  harnessCallId?: string | undefined;
}

/**
 * Writes down a call of the running turn, or finds the one it repeats: by the harness's id, else by tool and arguments among
 * the calls of earlier lives of the harness whose results it never got, oldest first. An id that comes again after the same
 * life has its result is one that the model counts anew: another call, if the harness does not run it itself. The caller holds the lock of the
 * session. Throws `no_turn_running` and `limit_reached`.
 */
export async function putHarnessCall(tx: Queryable, draft: HarnessCallDraft): Promise<HarnessCallRow> {
  const { turn, epoch } = await runningPlace(tx, draft.sessionId);
  const digest = callDigest(draft.tool, draft.input);
  const found = await tx.query<{ id: string }>(
    `SELECT id FROM harness_calls
     WHERE session_id = $1 AND turn = $2 AND digest = $3 AND executor = $4
       AND (epoch < $6 OR delivered_at IS NULL OR executor = 'harness')
       AND (harness_call_id = $5 OR (epoch < $6 AND delivered_at IS NULL))
     ORDER BY (harness_call_id IS NOT DISTINCT FROM $5) DESC, created_at, id LIMIT 1`,
    [draft.sessionId, turn, digest, draft.executor, draft.harnessCallId ?? null, epoch],
  );
  const known = found.rows[0];
  if (known !== undefined) {
    const taken = await tx.query(
      `UPDATE harness_calls SET epoch = $2, harness_call_id = coalesce($3, harness_call_id) WHERE id = $1
       RETURNING ${COLUMNS}`,
      [known.id, epoch, draft.harnessCallId ?? null],
    );
    return toCamel<HarnessCallRow>(taken.rows[0] as object);
  }
  await requireRoom(tx, draft.sessionId, turn);
  // Some harnesses count anew after a start: an id that names another call by now is that call's.
  await tx.query(
    'UPDATE harness_calls SET harness_call_id = NULL WHERE session_id = $1 AND turn = $2 AND harness_call_id = $3',
    [draft.sessionId, turn, draft.harnessCallId ?? null],
  );
  const made = await tx.query(
    `INSERT INTO harness_calls (id, session_id, turn, epoch, harness_call_id, tool, input, digest, executor)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ${COLUMNS}`,
    [
      newId('harnessCall'),
      draft.sessionId,
      turn,
      epoch,
      draft.harnessCallId ?? null,
      draft.tool,
      JSON.stringify(draft.input),
      digest,
      draft.executor,
    ],
  );
  return toCamel<HarnessCallRow>(made.rows[0] as object);
}

async function runningPlace(tx: Queryable, sessionId: string): Promise<{ turn: number; epoch: number }> {
  const result = await tx.query<{ turn: number; epoch: number }>(
    `SELECT t.turn, coalesce(h.epoch, 1) AS epoch
     FROM turns t LEFT JOIN harness_sessions h ON h.session_id = t.session_id AND h.turn = t.turn
     WHERE t.session_id = $1 AND t.state = 'running' ORDER BY t.turn DESC LIMIT 1`,
    [sessionId],
  );
  const place = result.rows[0];
  if (place === undefined) throw new LonghaulError('no_turn_running', `no turn of session ${sessionId} runs`);
  return place;
}

async function requireRoom(tx: Queryable, sessionId: string, turn: number): Promise<void> {
  const result = await tx.query<{ calls: number }>(
    'SELECT count(*)::int AS calls FROM harness_calls WHERE session_id = $1 AND turn = $2',
    [sessionId, turn],
  );
  if ((result.rows[0]?.calls ?? 0) < LIMITS.harnessCallsPerTurn) return;
  throw new LonghaulError('limit_reached', `at most ${LIMITS.harnessCallsPerTurn} tool calls in one turn`);
}

/** As the ledger computes it for an effect. */
function callDigest(tool: string, input: Record<string, unknown>): string {
  return createHash('sha256')
    .update(canonicalize({ tool, input }) ?? '')
    .digest('hex');
}

/** Throws `not_found`. */
export async function getHarnessCall(db: Queryable, callId: string): Promise<HarnessCallRow> {
  const result = await db.query(`SELECT ${COLUMNS} FROM harness_calls WHERE id = $1`, [callId]);
  return toCamel<HarnessCallRow>(requireRow(result.rows[0] as object | undefined, `tool call ${callId}`));
}

/** The call of a turn that the harness knows under this id. */
export async function findHarnessCall(
  db: Queryable,
  at: { sessionId: string; turn: number },
  harnessCallId: string,
): Promise<HarnessCallRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM harness_calls WHERE session_id = $1 AND turn = $2 AND harness_call_id = $3
     ORDER BY created_at DESC LIMIT 1`,
    [at.sessionId, at.turn, harnessCallId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<HarnessCallRow>(result.rows[0] as object);
}

/** The workflow has planned the call. */
export async function setCallEffect(tx: Queryable, callId: string, effectId: string): Promise<void> {
  await tx.query('UPDATE harness_calls SET effect_id = $2 WHERE id = $1', [callId, effectId]);
}

/** A call with what the ledger says of it. */
export interface HarnessCallStatus {
  id: string;
  sessionId: string;
  turn: number;
  executor: CallExecutor;
  turnRuns: boolean;
  /** False: the harness that asked under `epoch` is gone, and a later life of it may have asked again. */
  epoch: number;
  currentEpoch: number;
  effectId: string | null;
  state: EffectState | null;
  result: EffectResult | null;
  isError: boolean | null;
}

/** Throws `not_found`. */
export async function readCallStatus(db: Queryable, callId: string): Promise<HarnessCallStatus> {
  const result = await db.query(
    `SELECT c.id, c.session_id, c.turn, c.executor, c.epoch, t.state = 'running' AS turn_runs,
       coalesce(h.epoch, 1) AS current_epoch, c.effect_id, e.state, e.result, e.is_error
     FROM harness_calls c JOIN turns t ON t.session_id = c.session_id AND t.turn = c.turn
       LEFT JOIN harness_sessions h ON h.session_id = c.session_id AND h.turn = c.turn
       LEFT JOIN effects e ON e.id = c.effect_id
     WHERE c.id = $1`,
    [callId],
  );
  return toCamel<HarnessCallStatus>(requireRow(result.rows[0] as object | undefined, `tool call ${callId}`));
}

/** The harness has the result in its history: it will not ask for it again. */
export async function markDelivered(tx: Queryable, callId: string): Promise<void> {
  await tx.query('UPDATE harness_calls SET delivered_at = now() WHERE id = $1 AND delivered_at IS NULL', [callId]);
}

/**
 * The harness has the result of one of our tools in its history: of the call with its id, else of the oldest with this tool
 * and these arguments that has ended and is not delivered.
 */
export async function markSeen(
  db: Queryable,
  seen: { sessionId: string; turn: number; harnessCallId: string; tool: string; input: Record<string, unknown> },
): Promise<void> {
  await db.query(
    `UPDATE harness_calls SET delivered_at = now() WHERE id = (
       SELECT c.id FROM harness_calls c JOIN effects e ON e.id = c.effect_id
       WHERE c.session_id = $1 AND c.turn = $2 AND c.executor = 'platform' AND c.delivered_at IS NULL
         AND (c.harness_call_id = $3 OR c.digest = $4) AND e.state IN ('succeeded', 'failed', 'denied')
         AND NOT EXISTS (SELECT 1 FROM harness_calls d WHERE d.session_id = $1 AND d.turn = $2
           AND d.harness_call_id = $3 AND d.delivered_at IS NOT NULL)
       ORDER BY (c.harness_call_id IS NOT DISTINCT FROM $3) DESC, c.created_at, c.id LIMIT 1)`,
    [seen.sessionId, seen.turn, seen.harnessCallId, callDigest(seen.tool, seen.input)],
  );
}
