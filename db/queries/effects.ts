import type { ContentBlock } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { EffectState, PolicyVerdict } from '../../contracts/states.ts';
import { EFFECT_MOVES } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { EventDraft } from './events.ts';

export interface EffectResult {
  content: ContentBlock[];
  /** Intent of a file edit, written before the file is touched, so a crash in between can be told apart. */
  plan?: { oldSha256: string; newSha256: string };
}

export interface EffectRow {
  id: string;
  sessionId: string;
  turn: number;
  step: number;
  position: number;
  toolUseId: string;
  tool: string;
  kind: 'builtin' | 'custom' | 'invalid' | 'harness' | 'platform' | 'mcp';
  idempotent: boolean;
  input: Record<string, unknown>;
  digest: string;
  state: EffectState;
  verdict: PolicyVerdict;
  verdictReason: string;
  generation: number;
  sandboxId: string | null;
  result: EffectResult | null;
  isError: boolean | null;
}

const COLUMNS = `id, session_id, turn, step, position, tool_use_id, tool, kind, idempotent, input, digest, state, verdict,
  verdict_reason, generation, sandbox_id, result, is_error`;

export type EffectDraft = Omit<EffectRow, 'generation' | 'sandboxId'>;

/** Writes the ledger rows of one step. */
export async function insertEffects(tx: Queryable, drafts: EffectDraft[]): Promise<void> {
  for (const draft of drafts) {
    await tx.query(
      `INSERT INTO effects (id, session_id, turn, step, position, tool_use_id, tool, kind, idempotent, input, digest,
         state, verdict, verdict_reason, result, is_error, ended_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
         CASE WHEN $12 = 'denied' THEN now() END)`,
      [
        draft.id,
        draft.sessionId,
        draft.turn,
        draft.step,
        draft.position,
        draft.toolUseId,
        draft.tool,
        draft.kind,
        draft.idempotent,
        JSON.stringify(draft.input),
        draft.digest,
        draft.state,
        draft.verdict,
        draft.verdictReason,
        draft.result === null ? null : JSON.stringify(draft.result),
        draft.isError,
      ],
    );
  }
}

/** Throws `not_found`. */
export async function getEffect(db: Queryable, effectId: string): Promise<EffectRow> {
  const result = await db.query(`SELECT ${COLUMNS} FROM effects WHERE id = $1`, [effectId]);
  return toCamel<EffectRow>(requireRow<object>(result.rows[0] as object | undefined, `effect ${effectId}`));
}

export async function hasEffect(db: Queryable, effectId: string): Promise<boolean> {
  return (await db.query('SELECT 1 FROM effects WHERE id = $1', [effectId])).rowCount !== 0;
}

/** Effects of one step, in order. */
export async function listEffects(
  db: Queryable,
  sessionId: string,
  at: { turn: number; step: number },
): Promise<EffectRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM effects WHERE session_id = $1 AND turn = $2 AND step = $3 ORDER BY position`,
    [sessionId, at.turn, at.step],
  );
  return result.rows.map((row) => toCamel<EffectRow>(row as object));
}

/** Place of the next call of a harness, which tells no steps; the caller holds the lock of the session. */
export async function nextCallNumber(tx: Queryable, sessionId: string, turn: number): Promise<number> {
  const result = await tx.query<{ next: number }>(
    'SELECT coalesce(max(step) + 1, 0)::int AS next FROM effects WHERE session_id = $1 AND turn = $2',
    [sessionId, turn],
  );
  return result.rows[0]?.next ?? 0;
}

/** A command that has begun and not ended, as far as the ledger knows. */
export interface StartedEffect {
  id: string;
  tool: string;
  generation: number;
  sandboxId: string;
}

/** Effects of a turn that run in a sandbox, at most as many as a step may have. */
export async function listStarted(db: Queryable, sessionId: string, turn: number): Promise<StartedEffect[]> {
  const result = await db.query(
    `SELECT id, tool, generation, sandbox_id FROM effects
     WHERE session_id = $1 AND turn = $2 AND state = 'started' AND sandbox_id IS NOT NULL ORDER BY step, position LIMIT $3`,
    [sessionId, turn, LIMITS.toolCallsPerStep],
  );
  return result.rows.map((row) => toCamel<StartedEffect>(row as object));
}

/** The last `limit` paths that a session has read or searched, oldest first, each once. */
export async function listFilesRead(db: Queryable, sessionId: string, limit: number): Promise<string[]> {
  const result = await db.query<{ path: string }>(
    `SELECT path FROM (
       SELECT DISTINCT ON (path) path, turn, step, position FROM (
         SELECT CASE tool WHEN 'read' THEN input->>'file_path' ELSE input->>'path' END AS path, turn, step, position
         FROM effects WHERE session_id = $1 AND tool IN ('read', 'grep') AND state = 'succeeded'
       ) AS reads WHERE path IS NOT NULL ORDER BY path, turn, step, position
     ) AS paths ORDER BY turn DESC, step DESC, position DESC LIMIT $2`,
    [sessionId, limit],
  );
  return result.rows.map(({ path }) => path).toReversed();
}

/** The event that tells how a tool call ended, as clients know it for a tool of its kind; told once under `mark`. */
export function resultEvent(
  effect: Pick<EffectRow, 'id' | 'kind'>,
  mark: string | number,
  { content, isError }: { content: ContentBlock[]; isError: boolean },
): EventDraft {
  const isMcp = effect.kind === 'mcp';
  return {
    type: isMcp ? 'agent.mcp_tool_result' : 'agent.tool_result',
    dedupeKey: `result/${effect.id}/${mark}`,
    payload: { [isMcp ? 'mcp_tool_use_id' : 'tool_use_id']: effect.id, content, is_error: isError },
  };
}

interface EffectChange {
  result?: EffectResult;
  isError?: boolean;
  sandboxId?: string;
  input?: Record<string, unknown>;
  digest?: string;
  /** A human asked to run a lost effect again. */
  nextGeneration?: boolean;
}

/**
 * Compare-and-swap: moves the effect when it is in one of `from` (and, when given, of that generation). False means
 * somebody else moved it first; the caller must then read it again and do nothing on its own account.
 */
export async function moveEffect(
  tx: Queryable,
  effectId: string,
  from: EffectState,
  to: EffectState,
  change: EffectChange = {},
  generation?: number,
): Promise<boolean> {
  if (!(EFFECT_MOVES[from] as readonly EffectState[]).includes(to)) {
    throw new Error(`illegal effect move ${from} -> ${to}`);
  }
  const ended = to === 'denied' || to === 'succeeded' || to === 'failed';
  const moved = await tx.query(
    `UPDATE effects SET state = $3, result = coalesce($4, result), is_error = coalesce($5, is_error),
       sandbox_id = coalesce($6, sandbox_id), input = coalesce($7, input), digest = coalesce($8, digest),
       started_at = CASE WHEN $3 = 'started' THEN now() ELSE started_at END,
       ended_at = CASE WHEN $9 THEN now() END, generation = generation + $10
     WHERE id = $1 AND state = $2 AND ($11::int IS NULL OR generation = $11)`,
    [
      effectId,
      from,
      to,
      change.result === undefined ? null : JSON.stringify(change.result),
      change.isError ?? null,
      change.sandboxId ?? null,
      change.input === undefined ? null : JSON.stringify(change.input),
      change.digest ?? null,
      ended,
      change.nextGeneration === true ? 1 : 0,
      generation ?? null,
    ],
  );
  return moved.rowCount !== 0;
}

/** A started effect goes on in another sandbox. */
export async function adoptEffect(tx: Queryable, effectId: string, sandboxId: string): Promise<void> {
  await tx.query(`UPDATE effects SET sandbox_id = $2 WHERE id = $1 AND state = 'started'`, [effectId, sandboxId]);
}

/** Writes the intent of a started file edit. */
export async function planEffect(db: Queryable, effectId: string, plan: EffectResult['plan']): Promise<void> {
  await db.query(`UPDATE effects SET result = $2 WHERE id = $1 AND state = 'started'`, [
    effectId,
    JSON.stringify({ content: [], plan }),
  ]);
}

/** Effects that have not reached a final state. */
export async function listOpenEffects(tx: Queryable, sessionId: string, turn?: number): Promise<EffectRow[]> {
  const result = await tx.query(
    `SELECT ${COLUMNS} FROM effects
     WHERE session_id = $1 AND state NOT IN ('denied', 'succeeded', 'failed') AND ($2::int IS NULL OR turn = $2)
     ORDER BY turn, step, position FOR UPDATE`,
    [sessionId, turn ?? null],
  );
  return result.rows.map((row) => toCamel<EffectRow>(row as object));
}

/** True when a call of the turn waits for people. */
export async function hasWaitingEffects(tx: Queryable, sessionId: string, turn: number): Promise<boolean> {
  const result = await tx.query(
    `SELECT 1 FROM effects WHERE session_id = $1 AND turn = $2 AND state IN ('waiting', 'unknown') LIMIT 1`,
    [sessionId, turn],
  );
  return result.rowCount !== 0;
}

/** Those of `effectIds` that a client still has to answer, in their order. */
export async function stillWaiting(tx: Queryable, effectIds: string[]): Promise<string[]> {
  const result = await tx.query<{ id: string }>(
    `SELECT e.id FROM effects e
     WHERE e.id = ANY($1) AND ((e.kind = 'custom' AND e.state = 'waiting')
       OR EXISTS (SELECT 1 FROM approvals a WHERE a.effect_id = e.id AND a.state = 'pending'))
     ORDER BY e.turn, e.step, e.position`,
    [effectIds],
  );
  return result.rows.map((row) => row.id);
}

/** True when a tool call of this turn, or of the one before, ran in the session's sandbox. */
export async function wasSandboxUsedLately(db: Queryable, sessionId: string, turn: number): Promise<boolean> {
  const result = await db.query<{ used: boolean }>(
    `SELECT EXISTS (SELECT 1 FROM effects WHERE session_id = $1 AND turn IN ($2, $2 - 1) AND sandbox_id IS NOT NULL) AS used`,
    [sessionId, turn],
  );
  return result.rows[0]?.used === true;
}
