import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { insertInputs, markDelivered } from '../../db/queries/inputs.ts';
import { makeApproval, makeEffect } from './effects.ts';
import type { TestApi } from './support.ts';
import { makeAgent, makeSession, testApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi({ temporalAddress: '127.0.0.1:1' });
  // Nothing is delivered in these tests.
  api.services.delivery.deliver = () => Promise.resolve();
});
afterAll(() => api.close());

async function spend(sessionId: string, model: string, costMicros: number | null): Promise<void> {
  const id = newId('ledger');
  await api.pool.query(
    `INSERT INTO ledger (id, call_key, team_id, user_id, session_id, protocol, provider, model, input_tokens,
       cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_micros,
       usage_basis, latency_ms)
     VALUES ($1, $1, 'team-a', 'ada', $2, 'messages', 'anthropic', $3, 100, 10, 5, 2, 40, 0, $4, 'reported', 5)`,
    [id, sessionId, model, costMicros],
  );
}

const limit = (amount: string) => ({ type: 'limit', max_list_cost: { amount, currency: 'USD' } });

describe('sessions', () => {
  it('keep their agent version and overrides', async () => {
    const { agentId, environmentId } = await makeAgent(api, { system: 'v1' });
    const plain = await api.post('/v1/sessions', { agent: agentId, environment_id: environmentId }).expect(200);
    const overridden = await api
      .post('/v1/sessions', {
        agent: {
          type: 'agent_with_overrides',
          id: agentId,
          model: 'claude-opus-5-5',
          system: null,
          tools: [{ type: 'agent_toolset_20260401' }],
        },
        environment_id: environmentId,
      })
      .expect(200);
    await api.post(`/v1/agents/${agentId}`, { system: 'v2' }).expect(200);
    expect((await api.get(`/v1/sessions/${plain.body.id}`)).body.agent).toMatchObject({ version: 1, system: 'v1' });
    expect(overridden.body.agent).toMatchObject({ version: 1, system: null, model: { id: 'claude-opus-5-5' } });
    const pinned = await api
      .post('/v1/sessions', { agent: { type: 'agent', id: agentId, version: 1 }, environment_id: environmentId })
      .expect(200);
    expect(pinned.body.agent.version).toBe(1);
  });

  it('page both ways in both orders', async () => {
    const { agentId, environmentId } = await makeAgent(api);
    const ids: string[] = [];
    for (let i = 0; i < 5; i += 1) {
      ids.push((await api.post('/v1/sessions', { agent: agentId, environment_id: environmentId })).body.id as string);
    }
    const list = async (query: string) => {
      const answer = await api.get(`/v1/sessions?agent_id=${agentId}&limit=2${query}`).expect(200);
      const body = answer.body as { data: { id: string }[]; next_page: string | null; prev_page: string | null };
      return { ids: body.data.map((item) => item.id), next: body.next_page, prev: body.prev_page };
    };
    for (const [order, wanted] of [
      ['asc', ids],
      ['desc', ids.toReversed()],
    ] as const) {
      const first = await list(`&order=${order}`);
      const second = await list(`&order=${order}&page=${first.next}`);
      const third = await list(`&order=${order}&page=${second.next}`);
      expect([...first.ids, ...second.ids, ...third.ids]).toEqual(wanted);
      expect([first.prev, third.next]).toEqual([null, null]);
      const back = await list(`&order=${order}&page=${third.prev}`);
      expect(back.ids).toEqual(second.ids);
      const start = await list(`&order=${order}&page=${back.prev}`);
      expect(start.ids).toEqual(first.ids);
      expect(start.prev).toBeNull();
      expect((await list(`&order=${order}&page=${start.next}`)).ids).toEqual(second.ids);
    }
    const none = await api.get(`/v1/sessions?agent_id=${agentId}&statuses[]=running&statuses[]=terminated`).expect(200);
    expect(none.body.data).toEqual([]);
    const future = await api.get(`/v1/sessions?agent_id=${agentId}&created_at[gte]=2999-01-01T00:00:00Z`).expect(200);
    expect(future.body.data).toEqual([]);
  });

  it('have a budget that can be raised or removed, never added or lowered under what is spent', async () => {
    const without = await makeSession(api);
    const added = await api.post(`/v1/sessions/${without}`, { budget: limit('100') }).expect(400);
    expect(added.body.error.code).toBe('budget_create_only');
    const id = await makeSession(api, { budget: limit('100') });
    await spend(id, 'scripted', 500_000);
    expect((await api.post(`/v1/sessions/${id}`, { budget: limit('50') }).expect(400)).body.error.code).toBe(
      'budget_not_raised',
    );
    expect((await api.post(`/v1/sessions/${id}`, { budget: limit('51') }).expect(200)).body.budget).toEqual(
      limit('51'),
    );
    expect((await api.post(`/v1/sessions/${id}`, { budget: null }).expect(200)).body.budget).toBeNull();
    await api.post(`/v1/sessions/${id}`, { budget: limit('900') }).expect(400);
    for (const amount of ['0', '-5', '1.5', '05', 'abc']) {
      await api.post(`/v1/sessions/${id}`, { budget: limit(amount) }).expect(400);
    }
    const { agentId, environmentId } = await makeAgent(api, { model: 'unpriced-model' });
    const unpriced = await api
      .post('/v1/sessions', { agent: agentId, environment_id: environmentId, budget: limit('100') })
      .expect(400);
    expect(unpriced.body.error.code).toBe('model_not_budgetable');
    const capped = await makeSession(api, { budget: limit('100') });
    const turn = await api
      .post(`/v1/sessions/${capped}/events`, {
        events: [{ type: 'user.message', content: 'x', model: 'unpriced-model' }],
      })
      .expect(400);
    expect(turn.body.error).toMatchObject({ code: 'model_not_budgetable', field: 'events[0].model' });
  });

  it('show what they spent, by model; unpriced calls make the cost unknown', async () => {
    const id = await makeSession(api);
    await spend(id, 'a', 15_000);
    await spend(id, 'a', 1);
    await spend(id, 'b', 10_000);
    const usage = await api.get(`/v1/sessions/${id}/usage`).expect(200);
    expect(usage.body.total).toMatchObject({
      input_tokens: 300,
      output_tokens: 120,
      cache_read_input_tokens: 30,
      cache_creation: { ephemeral_5m_input_tokens: 15, ephemeral_1h_input_tokens: 6 },
      cost_micros: 25_001,
      list_cost: { amount: '3', currency: 'USD' },
    });
    expect(usage.body.models).toMatchObject([
      { model: 'a', calls: 2, cost_micros: 15_001 },
      { model: 'b', calls: 1, cost_micros: 10_000 },
    ]);
    await spend(id, 'c', null);
    expect((await api.get(`/v1/sessions/${id}`)).body.usage).toMatchObject({ cost_micros: null, list_cost: null });
  });

  it('change title and metadata with an event that says so', async () => {
    const id = await makeSession(api, { title: 'Old', metadata: { a: '1', b: '2' } });
    const changed = await api.post(`/v1/sessions/${id}`, { title: 'New', metadata: { a: null, c: '3' } }).expect(200);
    expect(changed.body).toMatchObject({ title: 'New', metadata: { b: '2', c: '3' } });
    const events = await api.get(`/v1/sessions/${id}/events`).expect(200);
    expect(events.body.data).toMatchObject([{ type: 'session.updated', title: 'New', metadata: { b: '2', c: '3' } }]);
    const refused = await api.post(`/v1/sessions/${id}`, { agent: { tools: [] } }).expect(400);
    expect(refused.body.error.field).toBe('agent');
  });

  it('have one thread', async () => {
    const id = await makeSession(api);
    const threads = await api.get(`/v1/sessions/${id}/threads`).expect(200);
    expect(threads.body.data).toMatchObject([{ type: 'session_thread', session_id: id, parent_thread_id: null }]);
    const thread = threads.body.data[0].id as string;
    expect((await api.get(`/v1/sessions/${id}/threads/${thread}`).expect(200)).body.id).toBe(thread);
    await api.get(`/v1/sessions/${id}/threads/sthr_other`).expect(404);
    await api
      .post(`/v1/sessions/${id}/events`, { events: [{ type: 'user.interrupt', session_thread_id: thread }] })
      .expect(200);
    const other = await api
      .post(`/v1/sessions/${id}/events`, { events: [{ type: 'user.interrupt', session_thread_id: 'sthr_other' }] })
      .expect(400);
    expect(other.body.error.field).toBe('events[0].session_thread_id');
  });

  it('refuse an archived agent or environment, and one that runs elsewhere', async () => {
    const { agentId, environmentId } = await makeAgent(api);
    const elsewhere = await api.post('/v1/environments', { name: 'mine', config: { type: 'self_hosted' } }).expect(200);
    const open = (environment: string) => api.post('/v1/sessions', { agent: agentId, environment_id: environment });
    expect((await open(elsewhere.body.id as string).expect(400)).body.error.field).toBe('environment_id');
    await open(environmentId).expect(200);
    expect((await api.delete(`/v1/environments/${environmentId}`).expect(409)).body.error.code).toBe('in_use');
    await api.post(`/v1/environments/${environmentId}/archive`).expect(200);
    expect((await open(environmentId).expect(409)).body.error).toMatchObject({
      code: 'archived',
      field: 'environment_id',
    });
  });

  it('with a full queue refuse messages, never what ends a turn or answers it', async () => {
    const id = await makeSession(api);
    await fillQueue(id, 'interrupt', LIMITS.queuedInputs);
    const send = (...events: object[]) => api.post(`/v1/sessions/${id}/events`, { events });
    const message = { type: 'user.message', content: 'one more' };
    await fillQueue(id, 'message', LIMITS.queuedInputs - 1);
    expect((await send(message, message).expect(429)).body.error.code).toBe('queue_full');
    await send(message, { type: 'user.interrupt' }).expect(200);
    expect((await send(message).expect(429)).body.error.code).toBe('queue_full');
    expect((await send({ type: 'user.interrupt' }, message).expect(429)).body.error.code).toBe('queue_full');
    await send({ type: 'user.interrupt' }).expect(200);
    const gated = await makeEffect(api.pool, id, 'builtin');
    await makeApproval(api.pool, id, gated);
    const custom = await makeEffect(api.pool, id, 'custom');
    await send(
      { type: 'user.tool_confirmation', tool_use_id: gated, result: 'allow' },
      { type: 'user.custom_tool_result', custom_tool_use_id: custom },
    ).expect(200);
  });
});

/** Inputs the workflow has and no turn took. */
async function fillQueue(sessionId: string, kind: 'message' | 'interrupt', count: number): Promise<void> {
  await withTransaction(api.pool, async (tx) => {
    const rows = await appendEvents(
      tx,
      sessionId,
      Array.from({ length: count }, () => ({ type: `user.${kind}`, processed: false })),
    );
    await insertInputs(
      tx,
      sessionId,
      rows.map((row) => ({ eventId: row.id, kind, message: { eventId: row.id, kind } })),
    );
    await markDelivered(
      tx,
      rows.map((row) => row.id),
    );
  });
}
