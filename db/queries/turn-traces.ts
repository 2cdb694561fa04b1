import type { ApprovalDecision, ApprovalState, EffectState, StopReason, TurnState } from '../../contracts/states.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { EffectResult } from './effects.ts';

/** A turn's waits are bounded by its steps; this bounds what is read of a turn that pauses without end. */
const MAX_MARKS = 5_000;
const MAX_APPROVALS = 500;
const MAX_INPUTS = 16;

/** What a trace says of the session around a turn. */
export interface TracedSession {
  id: string;
  teamId: string;
  createdBy: string;
  agentId: string;
  agentVersion: number;
  agentName: string | null;
  harness: string | null;
  deploymentId: string | null;
  repo: string | null;
  labels: string[];
  trigger: string | null;
  createdAt: Date;
}

export interface TracedTurn {
  session: TracedSession;
  turn: number;
  state: TurnState;
  model: string;
  stopReason: StopReason | null;
  startedAt: Date;
  endedAt: Date | null;
  steps: number;
  /** Events of the messages it took. */
  inputs: string[];
  marks: { kind: 'paused' | 'running'; at: Date; dedupeKey: string | null }[];
  approvals: TracedApproval[];
}

export interface TracedApproval {
  id: string;
  effectId: string;
  state: ApprovalState;
  decision: ApprovalDecision | null;
  createdAt: Date;
  decidedAt: Date | null;
}

export interface TracedEffect {
  id: string;
  sessionId: string;
  turn: number;
  step: number;
  toolUseId: string;
  tool: string;
  state: EffectState;
  verdict: string;
  generation: number;
  sandboxId: string | null;
  input: Record<string, unknown>;
  result: EffectResult | null;
  startedAt: Date;
  /** Null while its outcome is not known. */
  endedAt: Date | null;
}

/** The events of a session's first inputs, in order. */
export async function listSessionInputs(db: Queryable, sessionId: string): Promise<string[]> {
  const result = await db.query<{ event_id: string }>(
    `SELECT i.event_id FROM inputs i JOIN events e ON e.id = i.event_id WHERE i.session_id = $1
     ORDER BY e.seq LIMIT ${LIMITS.initialEvents}`,
    [sessionId],
  );
  return result.rows.map((row) => row.event_id);
}

/** How often the turn has waited for a person so far. */
export async function countPauses(db: Queryable, sessionId: string, turn: number): Promise<number> {
  const result = await db.query<{ pauses: number }>(
    `SELECT count(*)::int AS pauses FROM events
     WHERE session_id = $1 AND type = 'session.status_idle' AND dedupe_key LIKE $2`,
    [sessionId, `pause/${turn}/%`],
  );
  return result.rows[0]?.pauses ?? 0;
}

/** Everything the spans of a turn are made of; undefined when there is no such turn. */
export async function readTracedTurn(db: Queryable, sessionId: string, turn: number): Promise<TracedTurn | undefined> {
  const found = await db.query<Record<string, unknown>>(
    `SELECT t.turn, t.state, t.model, t.stop_reason, t.started_at, t.ended_at,
       (SELECT count(*)::int FROM steps p WHERE p.session_id = t.session_id AND p.turn = t.turn) AS steps,
       ARRAY(SELECT i.event_id FROM inputs i WHERE i.session_id = t.session_id AND i.turn = t.turn
         ORDER BY i.created_at LIMIT ${MAX_INPUTS}) AS inputs
     FROM turns t WHERE t.session_id = $1 AND t.turn = $2`,
    [sessionId, turn],
  );
  const row = found.rows[0];
  if (row === undefined) return undefined;
  const [session, marks, approvals] = await Promise.all([
    readTracedSession(db, sessionId),
    readMarks(db, sessionId, turn),
    readApprovals(db, sessionId, turn),
  ]);
  return { ...toCamel<Omit<TracedTurn, 'session' | 'marks' | 'approvals'>>(row), session, marks, approvals };
}

async function readTracedSession(db: Queryable, sessionId: string): Promise<TracedSession> {
  const result = await db.query(
    `SELECT id, team_id, created_by, agent_id, agent_version, agent ->> 'name' AS agent_name,
       agent ->> 'harness' AS harness, deployment_id, repo, labels, trigger, created_at
     FROM sessions WHERE id = $1`,
    [sessionId],
  );
  return toCamel<TracedSession>(result.rows[0] as object);
}

/** Where the log says that the turn waited and that the session ran. */
async function readMarks(db: Queryable, sessionId: string, turn: number): Promise<TracedTurn['marks']> {
  const result = await db.query<{ type: string; dedupe_key: string | null; created_at: Date }>(
    `SELECT type, dedupe_key, created_at FROM events
     WHERE session_id = $1 AND type IN ('session.status_idle', 'session.status_running')
       AND seq >= (SELECT min(seq) FROM events WHERE session_id = $1 AND type = 'session.status_idle'
         AND dedupe_key LIKE $2)
     ORDER BY seq LIMIT ${MAX_MARKS}`,
    [sessionId, `pause/${turn}/%`],
  );
  const own = `pause/${turn}/`;
  return result.rows.flatMap((row): TracedTurn['marks'] => {
    const { dedupe_key: dedupeKey, created_at: at } = row;
    if (row.type === 'session.status_running') return [{ kind: 'running', at, dedupeKey }];
    return dedupeKey?.startsWith(own) === true ? [{ kind: 'paused', at, dedupeKey }] : [];
  });
}

async function readApprovals(db: Queryable, sessionId: string, turn: number): Promise<TracedApproval[]> {
  const result = await db.query(
    `SELECT a.id, a.effect_id, a.state, a.decision, a.created_at, a.decided_at
     FROM approvals a JOIN effects e ON e.id = a.effect_id
     WHERE a.session_id = $1 AND e.turn = $2 ORDER BY a.created_at LIMIT ${MAX_APPROVALS}`,
    [sessionId, turn],
  );
  return result.rows.map((row) => toCamel<TracedApproval>(row as object));
}

const EFFECT = `SELECT id, session_id, turn, step, tool_use_id, tool, state, verdict, generation, sandbox_id, input, result,
  started_at, ended_at FROM effects`;

/** An effect that has been started; undefined for any other. */
export async function readTracedEffect(db: Queryable, effectId: string): Promise<TracedEffect | undefined> {
  const result = await db.query(`${EFFECT} WHERE id = $1 AND started_at IS NOT NULL`, [effectId]);
  return result.rows[0] === undefined ? undefined : toCamel<TracedEffect>(result.rows[0] as object);
}

/** Effects that ended with their turn and not by themselves: nobody else tells of them. */
export async function listCutEffects(db: Queryable, sessionId: string, turn: number): Promise<TracedEffect[]> {
  const result = await db.query(
    `${EFFECT} e WHERE session_id = $1 AND turn = $2 AND started_at IS NOT NULL AND (state = 'unknown' OR ended_at =
       (SELECT t.ended_at FROM turns t WHERE t.session_id = e.session_id AND t.turn = e.turn))`,
    [sessionId, turn],
  );
  return result.rows.map((row) => toCamel<TracedEffect>(row as object));
}
