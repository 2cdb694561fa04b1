import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findViolations, type InvariantOptions } from '../support/invariants.ts';
import { testDatabase } from '../support/postgres.ts';
import type { Query } from '../support/session-driver.ts';

const SESSION = 'sesn_1';

/** A session of one turn: a command that was asked for, allowed and run, and the answer after it. */
const SOUND = `
  INSERT INTO agents (id, team_id, latest_version, created_by) VALUES ('a', 't', 1, 'u');
  INSERT INTO agent_versions (agent_id, version, definition) VALUES ('a', 1, '{}');
  INSERT INTO environments (id, team_id, name, config) VALUES ('e', 't', 'e', '{}');
  INSERT INTO sessions (id, team_id, created_by, agent_id, agent_version, agent, environment_id, environment, last_seq, current_turn)
    VALUES ('${SESSION}', 't', 'u', 'a', 1, '{}', 'e', '{}', 6, 1);
  INSERT INTO events (session_id, seq, id, type, payload, dedupe_key) VALUES
    ('${SESSION}', 1, 'in', 'user.message', '{}', NULL),
    ('${SESSION}', 2, 'v2', 'session.status_running', '{}', NULL),
    ('${SESSION}', 3, 'eff', 'agent.tool_use', '{}', NULL),
    ('${SESSION}', 4, 'v4', 'agent.tool_result', '{"tool_use_id": "eff"}', NULL),
    ('${SESSION}', 5, 'v5', 'agent.message', '{}', NULL),
    ('${SESSION}', 6, 'v6', 'session.status_idle', '{}', 'turn-end/1');
  INSERT INTO inputs (event_id, session_id, kind, message, state, reason, turn, ended_at)
    VALUES ('in', '${SESSION}', 'message', '{}', 'completed', 'end_turn', 1, now());
  INSERT INTO turns (session_id, turn, state, model) VALUES ('${SESSION}', 1, 'completed', 'scripted');
  INSERT INTO steps (session_id, turn, step, model, stop_reason, content, usage) VALUES
    ('${SESSION}', 1, 0, 'scripted', 'tool_use', '[]', '{"inputTokens": 5, "outputTokens": 2}'),
    ('${SESSION}', 1, 1, 'scripted', 'end_turn', '[]', '{"inputTokens": 7, "outputTokens": 1}');
  INSERT INTO ledger (id, call_key, team_id, user_id, session_id, turn, step, protocol, provider, model, input_tokens,
      cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, usage_basis, latency_ms)
    SELECT 'l' || step, '${SESSION}/1/' || step, 't', 'u', '${SESSION}', 1, step, 'messages', 'scripted', 'scripted', input,
      0, 0, 0, output, 0, 'reported', 1 FROM (VALUES (0, 5, 2), (1, 7, 1)) AS v(step, input, output);
  INSERT INTO scripted_calls (session_id, script_digest, step, asked, billed) VALUES ('${SESSION}', 'd', 0, 1, 1);
  INSERT INTO effects (id, session_id, turn, step, position, tool_use_id, tool, kind, idempotent, input, digest, state, verdict, verdict_reason)
    VALUES ('eff', '${SESSION}', 1, 0, 0, 'toolu', 'bash', 'builtin', false, '{}', 'x', 'succeeded', 'ask', 'policy');
  INSERT INTO approvals (id, team_id, session_id, effect_id, kind, generation, digest, shown, policy_version, state, decision, expires_at, consumed_at)
    VALUES ('appr', 't', '${SESSION}', 'eff', 'effect', 1, 'x', '{}', 'p', 'consumed', 'allow', now(), now());
  INSERT INTO audit (team_id, actor, action, resource, session_id, decision, details) VALUES
    ('t', 'user:u', 'approval.decide', 'appr', '${SESSION}', 'allow', '{}'),
    ('t', 'workflow', 'effect.start', 'eff', '${SESSION}', NULL, '{"generation": 1}'),
    ('t', 'workflow', 'effect.end', 'eff', '${SESSION}', 'succeeded', '{"generation": 1}');
`;

const START = `INSERT INTO audit (team_id, actor, action, resource, session_id, details) VALUES ('t', 'w', 'effect.start', 'eff', '${SESSION}', '{"generation": 1}')`;

const BREAKS: [what: string, sql: string, found: RegExp][] = [
  ['an input that is left open', `UPDATE inputs SET state = 'in_turn', ended_at = NULL`, /still in_turn/],
  ['an input event without its row', `DELETE FROM inputs`, /has no input row/],
  ['a message without a turn', `UPDATE inputs SET turn = NULL`, /completed without a turn/],
  [
    'a gap in the log',
    `UPDATE events SET seq = 9 WHERE seq = 6; UPDATE sessions SET last_seq = 9`,
    /stands at place 6/,
  ],
  ['a counter ahead of the log', `UPDATE sessions SET last_seq = 7`, /last_seq is 7/],
  ['a turn that still runs', `UPDATE turns SET state = 'running'`, /turn 1 still runs/],
  ['a turn whose end was never told', `UPDATE events SET dedupe_key = NULL`, /was told 0 times/],
  ['an effect that never ended', `UPDATE effects SET state = 'started'`, /rests in state started/],
  ['a second start', START, /started twice in one generation/],
  [
    'a start that no approval covers',
    `UPDATE approvals SET state = 'cancelled', consumed_at = NULL`,
    /without its approval/,
  ],
  [
    'a start after a denial',
    `UPDATE approvals SET state = 'denied', decision = 'deny', consumed_at = NULL`,
    /and its effect started/,
  ],
  ['a start of a denied effect', `UPDATE effects SET state = 'denied'`, /was denied and started/],
  [
    'a start before the decision',
    `DELETE FROM audit WHERE action = 'effect.start'; ${START}; DELETE FROM audit WHERE action = 'approval.decide';
     INSERT INTO audit (team_id, actor, action, resource) VALUES ('t', 'u', 'approval.decide', 'appr')`,
    /before the decision/,
  ],
  ['an approval that nothing used', `DELETE FROM audit WHERE action = 'effect.start'`, /used up by 0 starts/],
  ['an approval that rests', `UPDATE approvals SET state = 'approved', consumed_at = NULL`, /rests in state approved/],
  [
    'two results',
    `INSERT INTO events (session_id, seq, id, type, payload) VALUES ('${SESSION}', 7, 'v7', 'agent.tool_result', '{"tool_use_id": "eff"}');
     UPDATE sessions SET last_seq = 7`,
    /has 2 results/,
  ],
  ['a step nobody paid', `DELETE FROM ledger WHERE step = 1`, /step 1\/1 has 0 ledger rows/],
  ['a step that cost more than it used', `UPDATE ledger SET input_tokens = 10 WHERE step = 0`, /cost 10\+2, used 5\+2/],
  ['a payment for nothing', `DELETE FROM steps WHERE step = 1`, /belongs to no step/],
  ['a step paid twice', `UPDATE scripted_calls SET billed = 2`, /paid again/],
  [
    'a call in flight',
    `INSERT INTO model_calls (idempotency_key, session_id, request_digest, state, owner, lease_expires_at)
     VALUES ('k', '${SESSION}', 'd', 'in_flight', 'g', now())`,
    /is in flight/,
  ],
  ['a status the log does not tell', `UPDATE sessions SET status = 'running'`, /its log says session.status_idle/],
  [
    'an ended session with a key',
    `UPDATE sessions SET status = 'terminated'; INSERT INTO virtual_keys (id, key_hash, team_id, user_id, session_id, max_parallel, expires_at)
     VALUES ('k', 'h', 't', 'u', '${SESSION}', 1, now())`,
    /1 keys of the ended session/,
  ],
];

const traces = (starts: number, ends: number): NonNullable<InvariantOptions['recorder']> => ({
  traces: () => Promise.resolve({ starts, ends }),
});

describe('the invariant checks', () => {
  let database: Awaited<ReturnType<typeof testDatabase>>;
  let client: pg.Pool;
  const query: Query = async <T>(sql: string, values: unknown[] = []) => (await client.query(sql, values)).rows as T[];
  const found = async (sql: string, recorder?: InvariantOptions['recorder']): Promise<string[]> => {
    await client.query('BEGIN; ALTER TABLE events DISABLE TRIGGER USER');
    try {
      await client.query(sql);
      return await findViolations(query, SESSION, recorder === undefined ? {} : { recorder });
    } finally {
      await client.query('ROLLBACK');
    }
  };

  beforeAll(async () => {
    database = await testDatabase();
    // One connection, so that BEGIN and ROLLBACK hold for all queries between them.
    client = new pg.Pool({ connectionString: database.url, max: 1 });
    await client.query(SOUND);
  });
  afterAll(async () => {
    await client.end();
    await database.drop();
  });

  it('find nothing in a sound session', async () => {
    expect(await found('SELECT 1')).toEqual([]);
  });

  it.each(BREAKS)('find %s', async (_what, sql, expected) => {
    expect(await found(sql)).toContainEqual(expect.stringMatching(expected));
  });

  it('believe the recorder, not the ledger', async () => {
    const command = `UPDATE effects SET input = '{"command": "echo \\"k start\\" >> /workspace/effects.log"}'`;
    expect(await found(command, traces(1, 1))).toEqual([]);
    expect(await found(command, traces(2, 1))).toEqual(['k began 2 times in 1 generations']);
    expect(await found(command, traces(1, 0))).toEqual(['k is said to have succeeded and left no trace of its end']);
  });
});
