import type { Client } from '@temporalio/client';
import { expect } from 'vitest';
import { keyOf, type Recorder } from './recorder.ts';
import type { Query } from './session-driver.ts';

export interface InvariantOptions {
  recorder?: Pick<Recorder, 'traces'>;
  temporal?: Client;
  /** Gateways that were killed: the answer one of them was getting may have been paid and lost with it. */
  gatewayKills?: number;
}

/** Fails with everything that is wrong about a session that has come to rest. */
export async function checkInvariants(query: Query, sessionId: string, options: InvariantOptions = {}): Promise<void> {
  expect(await findViolations(query, sessionId, options), `invariants of ${sessionId}`).toEqual([]);
}

/** Every broken invariant, in words. */
export async function findViolations(
  query: Query,
  sessionId: string,
  options: InvariantOptions = {},
): Promise<string[]> {
  const parts = await Promise.all([
    inputViolations(query, sessionId),
    eventViolations(query, sessionId),
    turnViolations(query, sessionId),
    effectViolations(query, sessionId, options.recorder),
    approvalViolations(query, sessionId),
    moneyViolations(query, sessionId, options.gatewayKills ?? 0),
    statusViolations(query, sessionId, options.temporal),
  ]);
  return parts.flat();
}

const when = (broken: boolean, text: string): string[] => (broken ? [text] : []);

/** Invariants 1 and 2: each accepted input has its one terminal state and a reason. */
async function inputViolations(query: Query, sessionId: string): Promise<string[]> {
  const rows = await query<{ id: string; kind: string; state: string; reason: string | null; turn: number | null }>(
    `SELECT i.event_id AS id, i.kind, i.state, i.reason, i.turn FROM inputs i WHERE i.session_id = $1`,
    [sessionId],
  );
  const lost = await query<{ id: string }>(
    `SELECT e.id FROM events e WHERE e.session_id = $1 AND e.type IN ('user.message', 'user.interrupt')
       AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.event_id = e.id)`,
    [sessionId],
  );
  const turns = rows.flatMap((row) => (row.kind === 'message' && row.turn !== null ? [row.turn] : []));
  return [
    ...lost.map(({ id }) => `input event ${id} has no input row`),
    ...rows.flatMap(({ id, kind, state, reason, turn }) => [
      ...when(!['completed', 'failed', 'cancelled'].includes(state), `input ${id} (${kind}) is still ${state}`),
      ...when((reason ?? '') === '', `input ${id} (${kind}) ended without a reason`),
      ...when(kind === 'message' && state === 'completed' && turn === null, `message ${id} completed without a turn`),
    ]),
    ...when(new Set(turns).size !== turns.length, `two messages share a turn: ${turns.join(', ')}`),
  ];
}

/** Invariant 5: gap-free from 1, each event once. */
async function eventViolations(query: Query, sessionId: string): Promise<string[]> {
  const rows = await query<{ seq: string; id: string; type: string; payload: Record<string, unknown> }>(
    `SELECT seq, id, type, payload FROM events WHERE session_id = $1 ORDER BY seq`,
    [sessionId],
  );
  const [session] = await query<{ last: string }>('SELECT last_seq AS last FROM sessions WHERE id = $1', [sessionId]);
  const gap = rows.findIndex((row, index) => Number(row.seq) !== index + 1);
  return [
    ...when(gap !== -1, `event seq ${rows[gap]?.seq} stands at place ${gap + 1}`),
    ...when(Number(session?.last) !== rows.length, `last_seq is ${session?.last}, there are ${rows.length} events`),
    ...when(new Set(rows.map(({ id }) => id)).size !== rows.length, 'two events share an id'),
  ];
}

/** Each turn ended once, in the log too, and each step follows the one before. */
async function turnViolations(query: Query, sessionId: string): Promise<string[]> {
  const turns = await query<{ turn: number; state: string; told: number; steps: number[] | null; terminated: boolean }>(
    `SELECT t.turn, t.state, s.status = 'terminated' AS terminated,
       (SELECT count(*)::int FROM events e WHERE e.session_id = t.session_id AND e.type = 'session.status_idle'
          AND e.dedupe_key = 'turn-end/' || t.turn) AS told,
       (SELECT array_agg(p.step ORDER BY p.step) FROM steps p WHERE p.session_id = t.session_id AND p.turn = t.turn) AS steps
     FROM turns t JOIN sessions s ON s.id = t.session_id WHERE t.session_id = $1 ORDER BY t.turn`,
    [sessionId],
  );
  return turns.flatMap(({ turn, state, told, steps, terminated }, index) => [
    ...when(turn !== index + 1, `turn ${turn} stands at place ${index + 1}`),
    ...when(state === 'running', `turn ${turn} still runs`),
    ...when(told !== 1 && !terminated, `the end of turn ${turn} was told ${told} times`),
    ...when(
      (steps ?? []).some((step, place) => step !== place),
      `turn ${turn} has steps ${(steps ?? []).join(', ')}`,
    ),
  ]);
}

interface EffectFacts {
  id: string;
  tool: string;
  kind: string;
  state: string;
  verdict: string;
  generation: number;
  idempotent: boolean;
  input: { command?: unknown };
  /** Generations that the audit saw starting, in order. */
  started: number[] | null;
  finals: number;
  results: number;
  /** A person said how it ended. */
  settled: boolean;
  question: boolean;
  turn_state: string;
  allowed: boolean;
}

/** Invariant 3: legal and final states, one start for each generation, one result. */
async function effectViolations(
  query: Query,
  sessionId: string,
  recorder?: InvariantOptions['recorder'],
): Promise<string[]> {
  const effects = await query<EffectFacts>(
    `SELECT e.id, e.tool, e.kind, e.state, e.verdict, e.generation, e.idempotent, e.input, t.state AS turn_state,
       (SELECT array_agg((a.details->>'generation')::int ORDER BY a.seq) FROM audit a
          WHERE a.resource = e.id AND a.action = 'effect.start') AS started,
       (SELECT count(*)::int FROM audit a WHERE a.resource = e.id AND a.action = 'effect.end'
          AND a.decision IN ('succeeded', 'failed')) AS finals,
       (SELECT count(*)::int FROM events v WHERE v.session_id = e.session_id AND v.type = 'agent.tool_result'
          AND v.payload->>'tool_use_id' = e.id) AS results,
       EXISTS (SELECT 1 FROM approvals p WHERE p.effect_id = e.id AND p.decision IN ('done', 'skip')) AS settled,
       EXISTS (SELECT 1 FROM approvals p WHERE p.effect_id = e.id AND p.kind = 'lost_effect') AS question,
       EXISTS (SELECT 1 FROM approvals p WHERE p.effect_id = e.id AND p.kind = 'effect' AND p.state = 'consumed') AS allowed
     FROM effects e JOIN turns t ON t.session_id = e.session_id AND t.turn = e.turn WHERE e.session_id = $1`,
    [sessionId],
  );
  const found: string[] = [];
  for (const effect of effects) {
    found.push(...ledgerViolations(effect));
    const key = keyOf(effect.input.command);
    if (recorder === undefined || key === undefined) continue;
    found.push(...traceViolations(effect, key, await recorder.traces(sessionId, key)));
  }
  return found;
}

function ledgerViolations(effect: EffectFacts): string[] {
  const name = `effect ${effect.id} (${effect.tool})`;
  const started = effect.started ?? [];
  const isFinal = ['denied', 'succeeded', 'failed'].includes(effect.state);
  const isOpenEnded = effect.state === 'unknown' && (effect.question || effect.turn_state === 'interrupted');
  return [
    ...when(!isFinal && !isOpenEnded, `${name} rests in state ${effect.state}`),
    ...when(new Set(started).size !== started.length, `${name} started twice in one generation: ${started.join(', ')}`),
    ...when(
      started.some((generation, index) => generation !== index + 1),
      `${name} has starts ${started.join(', ')}`,
    ),
    ...when(
      started.length > effect.generation,
      `${name} of generation ${effect.generation} began ${started.length} times`,
    ),
    ...when(effect.state === 'denied' && started.length > 0, `${name} was denied and started`),
    ...when(effect.state === 'succeeded' && started.length === 0 && effect.kind === 'builtin', `${name} never started`),
    ...when(effect.verdict === 'ask' && started.length > 0 && !effect.allowed, `${name} started without its approval`),
    ...when(effect.finals > 1, `${name} ended ${effect.finals} times`),
    ...when(effect.results !== 1 && effect.kind !== 'custom', `${name} has ${effect.results} results in the log`),
  ];
}

function traceViolations(effect: EffectFacts, key: string, traces: { starts: number; ends: number }): string[] {
  const generations = effect.started?.length ?? 0;
  const ranWhole = effect.state === 'succeeded' && !effect.settled;
  return [
    ...when(traces.starts > generations, `${key} began ${traces.starts} times in ${generations} generations`),
    ...when(traces.ends > traces.starts, `${key} ended ${traces.ends} times, began ${traces.starts} times`),
    ...when(ranWhole && traces.ends < 1, `${key} is said to have succeeded and left no trace of its end`),
  ];
}

/** Invariant 4: no start before the decision, used up once, and never after another decision. */
async function approvalViolations(query: Query, sessionId: string): Promise<string[]> {
  const rows = await query<{
    id: string;
    kind: string;
    state: string;
    decision: string | null;
    decided: string[] | null;
    started: string[] | null;
    isUsed: boolean;
  }>(
    `SELECT p.id, p.kind, p.state, p.decision, p.consumed_at IS NOT NULL AS "isUsed",
       (SELECT array_agg(a.seq::text ORDER BY a.seq) FROM audit a
          WHERE a.resource = p.id AND a.action = 'approval.decide') AS decided,
       (SELECT array_agg(a.seq::text ORDER BY a.seq) FROM audit a WHERE a.resource = p.effect_id
          AND a.action = 'effect.start'
          AND (a.details->>'generation')::int = p.generation + CASE WHEN p.kind = 'lost_effect' THEN 1 ELSE 0 END) AS started
     FROM approvals p WHERE p.session_id = $1`,
    [sessionId],
  );
  return rows.flatMap(({ id, kind, state, decision, decided, started, isUsed }) => {
    const name = `approval ${id} (${kind})`;
    const starts = started ?? [];
    const mayStart = state === 'consumed' && (decision === 'allow' || decision === 'retry');
    return [
      ...when(state === 'pending' || state === 'approved', `${name} rests in state ${state}`),
      ...when((decided ?? []).length > 1, `${name} was decided ${decided?.length} times`),
      ...when(isUsed !== (state === 'consumed'), `${name} is ${state} but consumed_at says otherwise`),
      ...when(mayStart && starts.length !== 1, `${name} was used up by ${starts.length} starts`),
      ...when(!mayStart && starts.length > 0, `${name} is ${state} (${decision}) and its effect started`),
      ...when(
        mayStart && Number(started?.[0]) < Number(decided?.[0] ?? 0),
        `${name}: its effect started before the decision`,
      ),
    ];
  });
}

/** Invariant 8: one ledger row a step, with the tokens of that step, paid once. */
async function moneyViolations(query: Query, sessionId: string, gatewayKills: number): Promise<string[]> {
  const steps = await query<{ at: string; rows: number; tokens: string; expected: string }>(
    `SELECT p.turn || '/' || p.step AS at, count(l.id)::int AS rows,
       string_agg(l.input_tokens || '+' || l.output_tokens, ' ') AS tokens,
       (p.usage->>'inputTokens') || '+' || (p.usage->>'outputTokens') AS expected
     FROM steps p LEFT JOIN ledger l ON l.session_id = p.session_id AND l.turn = p.turn AND l.step = p.step
     WHERE p.session_id = $1 GROUP BY p.turn, p.step, p.usage`,
    [sessionId],
  );
  const loose = await query<{ at: string }>(
    `SELECT l.call_key AS at FROM ledger l LEFT JOIN turns t ON t.session_id = l.session_id AND t.turn = l.turn
     WHERE l.session_id = $1 AND coalesce(t.state, 'none') NOT IN ('interrupted', 'failed')
       AND (t.turn IS NULL OR NOT EXISTS (SELECT 1 FROM harness_sessions h WHERE h.session_id = l.session_id))
       AND NOT EXISTS (SELECT 1 FROM steps p WHERE p.session_id = l.session_id AND p.turn = l.turn AND p.step = l.step)`,
    [sessionId],
  );
  const calls = await query<{ key: string }>(
    `SELECT idempotency_key AS key FROM model_calls WHERE session_id = $1 AND state = 'in_flight'`,
    [sessionId],
  );
  const billed = await query<{ step: number; billed: number }>(
    `SELECT step, billed FROM scripted_calls WHERE session_id = $1 AND billed > 1`,
    [sessionId],
  );
  const extra = billed.reduce((sum, row) => sum + row.billed - 1, 0);
  return [
    ...steps.flatMap(({ at, rows, tokens, expected }) => [
      ...when(rows !== 1, `step ${at} has ${rows} ledger rows`),
      ...when(rows === 1 && gatewayKills === 0 && tokens !== expected, `step ${at} cost ${tokens}, used ${expected}`),
    ]),
    ...loose.map(({ at }) => `ledger row ${at} belongs to no step`),
    ...calls.map(({ key }) => `model call ${key} is in flight`),
    ...when(
      extra > gatewayKills,
      `paid again: ${billed.map((row) => `step ${row.step} ${row.billed} times`).join(', ')}`,
    ),
  ];
}

const STATUS_EVENT: Record<string, string> = {
  idle: 'session.status_idle',
  running: 'session.status_running',
  rescheduling: 'session.status_rescheduled',
  terminated: 'session.status_terminated',
};

/** The row, the log and Temporal say the same; a session that ended holds nothing (invariant 10). */
async function statusViolations(query: Query, sessionId: string, temporal?: Client): Promise<string[]> {
  const [row] = await query<{ status: string; last: string | null; keys: number; sandboxes: number }>(
    `SELECT s.status,
       (SELECT e.type FROM events e WHERE e.session_id = s.id AND e.type LIKE 'session.status%' ORDER BY e.seq DESC LIMIT 1) AS last,
       (SELECT count(*)::int FROM virtual_keys k WHERE k.session_id = s.id AND k.revoked_at IS NULL) AS keys,
       (SELECT count(*)::int FROM sandboxes b WHERE b.session_id = s.id AND b.state <> 'destroyed') AS sandboxes
     FROM sessions s WHERE s.id = $1`,
    [sessionId],
  );
  if (row === undefined) return [`session ${sessionId} does not exist`];
  const { status, last, keys, sandboxes } = row;
  const ended = status === 'terminated';
  const workflow = temporal === undefined ? undefined : await workflowStatus(temporal, sessionId);
  return [
    ...when(last !== STATUS_EVENT[status], `the session is ${status}, its log says ${last}`),
    ...when(ended && keys > 0, `${keys} keys of the ended session are valid`),
    ...when(ended && sandboxes > 0, `${sandboxes} sandboxes of the ended session are left`),
    ...when(workflow !== undefined && workflow !== (ended ? 'COMPLETED' : 'RUNNING'), `its workflow is ${workflow}`),
  ];
}

async function workflowStatus(temporal: Client, sessionId: string): Promise<string> {
  return (await temporal.workflow.getHandle(`session/${sessionId}`).describe()).status.name;
}
