import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sweepOnce } from '../../api/sweep.ts';
import { sessionWorkflowId } from '../../workflows/ids.ts';
import type { TestApi } from './support.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { makeAgent, makeSession, testApi } from './support.ts';

/** No worker runs here: Temporal keeps what it was given, and the tests look at that. */
let api: TestApi;
const opened: string[] = [];
beforeAll(async () => {
  api = await testApi();
});
afterEach(async () => {
  for (const id of opened.splice(0)) {
    await api.services.temporal.client.workflow
      .getHandle(id)
      .terminate('test over')
      .catch(() => undefined);
  }
});
afterAll(() => api.close());

async function inputStates(sessionId: string): Promise<{ kind: string; state: string; reason: string | null }[]> {
  const result = await api.pool.query(
    `SELECT i.kind, i.state, i.reason FROM inputs i JOIN events e ON e.id = i.event_id
     WHERE i.session_id = $1 ORDER BY e.seq`,
    [sessionId],
  );
  return result.rows as { kind: string; state: string; reason: string | null }[];
}

async function historyOf(sessionId: string) {
  const workflowId = sessionWorkflowId(sessionId);
  opened.push(workflowId);
  return api.services.temporal.client.workflow.getHandle(workflowId).fetchHistory();
}

/** As many as a session takes, and as long. */
const LABELS = Array.from({ length: LIMITS.labels }, (_value, index) => String(index).padEnd(LIMITS.labelChars, '語'));

describe('delivery', () => {
  it('starts the session workflow with its initial events, once, with what it needs to be found', async () => {
    const { agentId, environmentId } = await makeAgent(api);
    const made = await api
      .post('/v1/sessions', {
        agent: { type: 'agent', id: agentId, version: 1 },
        environment_id: environmentId,
        title: 'Fix it',
        limits: { idle_ms: 60_000 },
        labels: LABELS,
        repo: 'acme/shop',
        initial_events: [{ type: 'user.message', content: 'hello', model: 'scripted' }],
      })
      .expect(200);
    expect(made.body).toMatchObject({
      type: 'session',
      status: 'idle',
      title: 'Fix it',
      agent: { id: agentId, version: 1 },
    });
    const { id } = made.body as { id: string };
    await api.services.delivery.drain();
    const history = await historyOf(id);
    const started = history.events?.[0]?.workflowExecutionStartedEventAttributes;
    const args = JSON.parse(Buffer.from(started?.input?.payloads?.[0]?.data ?? []).toString()) as Record<
      string,
      unknown
    >;
    expect(args).toMatchObject({
      sessionId: id,
      title: 'Fix it',
      agent: { id: agentId, version: 1, name: 'Helper' },
      limits: { idleMs: 60_000 },
      inputs: [{ kind: 'message' }],
    });
    // Ids and decisions only: the text itself stays in Postgres (invariant 6).
    expect(JSON.stringify(args)).not.toContain('hello');
    const attributes = started?.searchAttributes?.indexedFields ?? {};
    expect(Object.keys(attributes).toSorted()).toEqual(
      ['AgentId', 'AgentVersion', 'Harness', 'Labels', 'Repo', 'TeamId', 'UserId'].toSorted(),
    );
    const shown = JSON.parse(Buffer.from(attributes['Labels']?.data ?? []).toString()) as string[];
    // Temporal takes no more than 2 KB.
    expect(shown.length).toBeGreaterThan(5);
    expect(shown).toEqual(LABELS.slice(0, shown.length));
    expect(await inputStates(id)).toEqual([{ kind: 'message', state: 'delivered', reason: null }]);
  });

  it('starts a session whatever its agent and title are called, and in which script', async () => {
    const { agentId, environmentId } = await makeAgent(api, { name: '語'.repeat(100) });
    for (const title of ['語'.repeat(LIMITS.titleChars), '😀'.repeat(LIMITS.titleChars / 2), '"\\\n'.repeat(100)]) {
      const made = await api.post('/v1/sessions', { agent: agentId, environment_id: environmentId, title }).expect(200);
      await api.services.delivery.drain();
      expect((await historyOf(made.body.id as string)).events, title).not.toHaveLength(0);
    }
  });

  it('answers 200 with a durable row while Temporal is away, and the sweep delivers afterwards', async () => {
    const away = await testApi({ temporalAddress: '127.0.0.1:1' });
    try {
      const id = await makeSession(away, { initial_events: [{ type: 'user.message', content: 'hi' }] });
      const beforeMs = Date.now();
      await away.post(`/v1/sessions/${id}/events`, { events: [{ type: 'user.interrupt' }] }).expect(200);
      // It does not wait for a delivery, which gives up after ten seconds.
      expect(Date.now() - beforeMs).toBeLessThan(9_000);
      const count = await away.pool.query(`SELECT count(*)::int AS n FROM inputs WHERE state = 'accepted'`);
      expect(count.rows[0]).toEqual({ n: 2 });

      // The same rows, seen by an api that reaches Temporal: what a restart after the outage does.
      const back = { ...api.services, pool: away.pool };
      const { Delivery } = await import('../../api/delivery.ts');
      const delivery = new Delivery({
        pool: away.pool,
        temporal: api.services.temporal,
        taskQueue: api.taskQueue,
        logger: api.services.logger,
        metrics: api.services.metrics,
      });
      await sweepOnce({ ...back, delivery }, 0);
      const left = await away.pool.query(`SELECT count(*)::int AS n FROM inputs WHERE state = 'accepted'`);
      expect(left.rows[0]).toEqual({ n: 0 });
      const history = await historyOf(id);
      const signals = history.events?.flatMap(
        (event) => event.workflowExecutionSignaledEventAttributes?.signalName ?? [],
      );
      expect(signals).toEqual(['interrupt']);
      const { rows } = await away.pool.query('SELECT workflow_started_at FROM sessions WHERE id = $1', [id]);
      expect((rows[0] as { workflow_started_at: Date | null }).workflow_started_at).not.toBeNull();
    } finally {
      await away.close();
    }
  });

  it('survives a crash between start and bookkeeping: one workflow, every input sent', async () => {
    const id = await makeSession(api, { initial_events: [{ type: 'user.message', content: 'first' }] });
    await api.services.delivery.drain();
    await api.pool.query('UPDATE sessions SET workflow_started_at = NULL WHERE id = $1', [id]);
    await api.post(`/v1/sessions/${id}/events`, { events: [{ type: 'user.interrupt' }] }).expect(200);
    await api.services.delivery.drain();
    expect((await inputStates(id)).map((input) => input.state)).toEqual(['delivered', 'delivered']);
    const history = await historyOf(id);
    expect(history.events?.filter((event) => event.workflowExecutionSignaledEventAttributes)).toHaveLength(1);
  });

  it('ends a session whose workflow was ended from outside, and cancels what waits', async () => {
    const id = await makeSession(api);
    await api.services.delivery.drain();
    await api.services.temporal.client.workflow.getHandle(sessionWorkflowId(id)).terminate('operator');
    await api.post(`/v1/sessions/${id}/events`, { events: [{ type: 'user.message', content: 'anyone?' }] }).expect(200);
    await api.services.delivery.drain();
    expect(await inputStates(id)).toEqual([{ kind: 'message', state: 'cancelled', reason: 'its workflow has ended' }]);
    expect((await api.get(`/v1/sessions/${id}`)).body.status).toBe('terminated');
    const refused = await api.post(`/v1/sessions/${id}/events`, { events: [{ type: 'user.message', content: 'x' }] });
    expect(refused.status).toBe(409);
    expect(refused.body.error.code).toBe('session_terminated');
    // Nothing starts it again (invariant 10).
    await sweepOnce(api.services, 0);
    const description = await api.services.temporal.client.workflow.getHandle(sessionWorkflowId(id)).describe();
    expect(description.status.name).toBe('TERMINATED');
  });

  it('archive and delete refuse later events and signal the workflow', async () => {
    const archived = await makeSession(api);
    expect((await api.post(`/v1/sessions/${archived}/archive`).expect(200)).body.archived_at).not.toBeNull();
    await api.services.delivery.drain();
    await api.post(`/v1/sessions/${archived}/archive`).expect(200);
    const refused = await api.post(`/v1/sessions/${archived}/events`, { events: [{ type: 'user.interrupt' }] });
    expect(refused.body.error.code).toBe('session_archived');
    const history = await historyOf(archived);
    const signals = history.events?.flatMap(
      (event) => event.workflowExecutionSignaledEventAttributes?.signalName ?? [],
    );
    expect(signals).toEqual(['terminate']);
    expect((await api.get('/v1/sessions')).body.data.some((item: { id: string }) => item.id === archived)).toBe(false);

    const deleted = await makeSession(api);
    opened.push(sessionWorkflowId(deleted));
    expect((await api.delete(`/v1/sessions/${deleted}`).expect(200)).body).toEqual({
      id: deleted,
      type: 'session_deleted',
    });
    await api.get(`/v1/sessions/${deleted}`).expect(404);
    await api.get(`/v1/sessions/${deleted}/events`).expect(404);
  });

  it('keeps a message that no worker has accepted yet', async () => {
    const id = await makeSession(api);
    const sent = await api
      .post(`/v1/sessions/${id}/events`, {
        events: [{ type: 'user.message', content: [{ type: 'text', text: 'hi' }] }],
      })
      .expect(200);
    const [event] = sent.body.data as { id: string; processed_at: string | null; seq: number }[];
    expect(event).toMatchObject({
      type: 'user.message',
      processed_at: null,
      seq: 1,
      content: [{ type: 'text', text: 'hi' }],
    });
    // Without a worker nobody accepts the update; the row stays for the sweep.
    expect((await inputStates(id))[0]?.state).toBe('accepted');
    opened.push(sessionWorkflowId(id));
  });
});
