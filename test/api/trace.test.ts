import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { SessionTraceResource } from '../../contracts/traces.ts';
import { effectSpan, sessionSpan, spanIdOf, turnSpan } from '../../telemetry/trace-ids.ts';
import { makeSession, testApi, type TestApi } from './support.ts';

/** Rows as gateway and worker write them. */
class Record {
  readonly #api: TestApi;
  readonly #sessionId: string;

  constructor(api: TestApi, sessionId: string) {
    this.#api = api;
    this.#sessionId = sessionId;
  }

  async turn(turn: number, more: { startedAt?: string; endedAt?: string } = {}): Promise<void> {
    await this.#api.pool.query(
      `INSERT INTO turns (session_id, turn, state, model, stop_reason, started_at, ended_at)
       VALUES ($1, $2, CASE WHEN $4::text IS NULL THEN 'running' ELSE 'completed' END, 'scripted',
         CASE WHEN $4::text IS NOT NULL THEN '{"type":"end_turn"}'::jsonb END, coalesce($3, '2026-01-01T00:00:00Z')::timestamptz, $4::timestamptz)`,
      [this.#sessionId, turn, more.startedAt ?? null, more.endedAt ?? null],
    );
  }

  async step(turn: number, step: number, tools = 0): Promise<void> {
    await this.#api.pool.query(
      `INSERT INTO steps (session_id, turn, step, model, stop_reason, content, usage) VALUES ($1, $2, $3, 'scripted', 'end_turn', '[]', '{}')`,
      [this.#sessionId, turn, step],
    );
    await this.modelCall(`${this.#sessionId}/${turn}/${step}`, turn, step);
    for (let position = 0; position < tools; position += 1) {
      await this.#api.pool.query(
        `INSERT INTO effects (id, session_id, turn, step, position, tool_use_id, tool, kind, idempotent, input, digest, state, verdict,
           verdict_reason, generation, started_at, ended_at)
         VALUES ($1, $2, $3, $4, $5, 'toolu', 'bash', 'builtin', false, '{"command":"a-secret-command"}', 'd', 'succeeded', 'allow', 'r', 2,
           '2026-01-01T00:02:00Z', '2026-01-01T00:02:01.5Z')`,
        [newId('event'), this.#sessionId, turn, step, position],
      );
    }
  }

  async modelCall(
    key: string | null,
    turn: number | null,
    step: number | null,
    error: string | null = null,
  ): Promise<string> {
    const id = newId('ledger');
    await this.#api.pool.query(
      `INSERT INTO ledger (id, call_key, team_id, user_id, session_id, turn, step, protocol, provider, model, requested_model, input_tokens,
         cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_micros, usage_basis,
         ttft_ms, latency_ms, http_status, error)
       VALUES ($1, $2, 'team-a', 'ada', $3, $4, $5, 'messages', 'scripted', 'scripted', 'fast', 10, 20, 3, 4, 5, 1, 42, 'reported', 30, 100,
         200, $6)`,
      [id, key ?? id, this.#sessionId, turn, step, error],
    );
    return id;
  }

  async event(type: string, at: string, dedupeKey: string | null): Promise<void> {
    await this.#api.pool.query(
      `INSERT INTO events (session_id, seq, id, type, payload, dedupe_key, created_at)
       VALUES ($1, (SELECT coalesce(max(seq), 0) + 1 FROM events WHERE session_id = $1), $2, $3, '{}', $4, $5)`,
      [this.#sessionId, newId('event'), type, dedupeKey, at],
    );
  }
}

describe('GET /v1/sessions/{id}/trace', () => {
  let api: TestApi;
  beforeAll(async () => {
    api = await testApi();
  });
  afterAll(() => api.close());

  const traceOf = async (sessionId: string, query = ''): Promise<SessionTraceResource> =>
    (await api.get(`/v1/sessions/${sessionId}/trace${query}`).expect(200)).body as SessionTraceResource;

  it('a session nothing has happened in', async () => {
    const sessionId = await makeSession(api);
    const trace = await traceOf(sessionId);
    const { traceId, spanId } = sessionSpan(sessionId);
    expect(trace).toMatchObject({
      trace_id: traceId,
      span_id: spanId,
      calls: 0,
      turns: [],
      other_calls: [],
      next_page: null,
    });
  });

  it('turns, their parts, calls and tools, each with the id of its span', async () => {
    const sessionId = await makeSession(api);
    const record = new Record(api, sessionId);
    await record.turn(1, { startedAt: '2026-01-01T00:00:00Z', endedAt: '2026-01-01T00:10:00Z' });
    await record.step(1, 0, 1);
    await record.step(1, 1);
    await record.event('session.status_running', '2026-01-01T00:00:00Z', null);
    await record.event('session.status_idle', '2026-01-01T00:01:00Z', 'pause/1/0/0');
    await record.event('session.status_running', '2026-01-01T00:02:00Z', null);
    await record.event('session.status_idle', '2026-01-01T00:10:00Z', 'turn-end/1');
    const outside = await record.modelCall(null, null, null, 'provider_timeout');
    const trace = await traceOf(sessionId);
    expect(trace).toMatchObject({ calls: 3, cost_micros: 126, next_page: null, other_calls_truncated: false });
    const [turn] = trace.turns;
    expect(turn).toMatchObject({ turn: 1, duration_ms: 600_000, waited_ms: 60_000, stop_reason: { type: 'end_turn' } });
    const parts = [turnSpan(sessionId, 1, 0).spanId, turnSpan(sessionId, 1, 1).spanId];
    expect(turn?.parts).toMatchObject([
      { span_id: parts[0], ended_at: '2026-01-01T00:01:00.000Z' },
      { span_id: parts[1], started_at: '2026-01-01T00:02:00.000Z', ended_at: '2026-01-01T00:10:00.000Z' },
    ]);
    expect(turn?.steps.map((step) => [step.step, step.call?.span_id, step.call?.parent_span_id])).toEqual([
      [0, spanIdOf('call', `${sessionId}/1/0`), parts[0]],
      [1, spanIdOf('call', `${sessionId}/1/1`), parts[1]],
    ]);
    expect(turn?.steps[0]?.call).toMatchObject({
      input_tokens: 10,
      cache_read_input_tokens: 20,
      cache_creation_input_tokens: 7,
      output_tokens: 5,
      cost_micros: 42,
      ttft_ms: 30,
      generation_ms: 70,
      latency_ms: 100,
      requested_model: 'fast',
      attempts: null,
      cache: null,
    });
    const [effect] = turn?.steps[0]?.effects ?? [];
    expect(effect).toMatchObject({ tool: 'bash', parent_span_id: parts[1], duration_ms: 1_500, generation: 2 });
    expect(effect?.span_id).toBe(effectSpan(sessionId, effect?.id ?? '', 2).spanId);
    expect(trace.other_calls).toMatchObject([
      { id: outside, span_id: spanIdOf('call', outside), parent_span_id: trace.span_id, error: 'provider_timeout' },
    ]);
    expect(JSON.stringify(trace)).not.toContain('a-secret-command');
  });

  it('goes page by page, with each step once and each turn wherever it has a step', async () => {
    const sessionId = await makeSession(api);
    const record = new Record(api, sessionId);
    for (const turn of [1, 2, 3]) {
      await record.turn(turn);
      for (let step = 0; step < (turn === 2 ? 0 : 5); step += 1) await record.step(turn, step);
    }
    const whole = await traceOf(sessionId);
    const [turns, steps]: [number[], string[]] = [[], []];
    let page: string | null = '';
    while (page !== null) {
      const got: SessionTraceResource = await traceOf(sessionId, `?limit=2${page === '' ? '' : `&page=${page}`}`);
      expect(got.turns.reduce((sum, turn) => sum + turn.steps.length, 0)).toBeLessThanOrEqual(2);
      turns.push(...got.turns.map((turn) => turn.turn));
      steps.push(...got.turns.flatMap((turn) => turn.steps.map((step) => `${turn.turn}/${step.step}`)));
      page = got.next_page;
    }
    expect([...new Set(turns)]).toEqual([1, 2, 3]);
    expect(steps).toEqual(whole.turns.flatMap((turn) => turn.steps.map((step) => `${turn.turn}/${step.step}`)));
    expect(steps).toHaveLength(10);
  });

  it('shows a bounded number of tools and of other calls', async () => {
    const sessionId = await makeSession(api);
    const record = new Record(api, sessionId);
    await record.turn(1);
    await record.step(1, 0, LIMITS.toolCallsPerStep + 3);
    for (let call = 0; call < LIMITS.traceOtherCalls + 1; call += 1) await record.modelCall(null, null, null);
    const trace = await traceOf(sessionId);
    expect(trace.turns[0]?.steps[0]?.effects).toHaveLength(LIMITS.toolCallsPerStep);
    expect(trace.other_calls).toHaveLength(LIMITS.traceOtherCalls);
    expect(trace.other_calls_truncated).toBe(true);
  });

  it.each([
    ['?limit=0', 'limit'],
    [`?limit=${LIMITS.traceStepsMax + 1}`, 'limit'],
    ['?page=nonsense', 'page'],
    ['?depth=2', 'depth'],
  ])('refuses %s by the name of the field', async (query, field) => {
    const sessionId = await makeSession(api);
    const answer = await api.get(`/v1/sessions/${sessionId}/trace${query}`).expect(400);
    expect(JSON.stringify(answer.body)).toContain(field);
  });

  it('is there for the own team only', async () => {
    const sessionId = await makeSession(api);
    await api.get(`/v1/sessions/${sessionId}/trace`).set('authorization', `Bearer ${api.otherKey}`).expect(404);
    await api.get(`/v1/sessions/${newId('session')}/trace`).expect(404);
  });
});
