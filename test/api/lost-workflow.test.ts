import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { endLostRun } from '../../api/lost-workflow.ts';
import { checkNext, checkQuiet, type Walk } from '../../api/sweep.ts';
import { newId } from '../../contracts/ids.ts';
import { withTransaction } from '../../db/pool.ts';
import { insertRun } from '../../db/queries/deployment-runs.ts';
import { markDelivered, takeInputs } from '../../db/queries/inputs.ts';
import { listDoomedSandboxes } from '../../db/queries/sandbox-reaping.ts';
import { insertSandbox } from '../../db/queries/sandboxes.ts';
import { setIdle, setRunning } from '../../db/queries/session-status.ts';
import { acceptMessages } from '../../db/queries/sessions.ts';
import { openTurn } from '../../db/queries/turns.ts';
import { mintVirtualKey } from '../../db/queries/virtual-keys.ts';
import { sessionWorkflowId } from '../../workflows/ids.ts';
import { makeApproval, makeEffect } from './effects.ts';
import type { TestApi } from './support.ts';
import { makeAgent, makeSession, testApi } from './support.ts';

/** No worker runs here: the rows say what one would have written. */
let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

const hello = { initial_events: [{ type: 'user.message', content: 'hello' }] };
const workflowOf = (id: string) => api.services.temporal.client.workflow.getHandle(sessionWorkflowId(id));

/** A session at work: its first message is in a running turn with a tool call that waits for approval. */
async function atWork(): Promise<{ id: string; approvalId: string }> {
  const id = await makeSession(api, hello);
  await api.services.delivery.drain();
  const { rows } = await api.pool.query<{ event_id: string }>('SELECT event_id FROM inputs WHERE session_id = $1', [
    id,
  ]);
  await withTransaction(api.pool, async (tx) => {
    await openTurn(tx, id, 1, 'scripted');
    await takeInputs(
      tx,
      id,
      1,
      rows.map((row) => row.event_id),
    );
    await setRunning(tx, id);
  });
  const approvalId = await makeApproval(api.pool, id, await makeEffect(api.pool, id, 'builtin'));
  return { id, approvalId };
}

async function inputsOf(id: string): Promise<object[]> {
  const { rows } = await api.pool.query<object>(
    'SELECT i.state, i.reason FROM inputs i JOIN events e ON e.id = i.event_id WHERE i.session_id = $1 ORDER BY e.seq',
    [id],
  );
  return rows;
}

async function one(sql: string, id: string): Promise<unknown> {
  const { rows } = await api.pool.query<object>(sql, [id]);
  return rows[0];
}

describe('a session at work', () => {
  it('whose workflow was terminated in Temporal ends with all it held', async () => {
    const { id, approvalId } = await atWork();
    const key = await mintVirtualKey(api.pool, { teamId: 'team-a', userId: 'ada', sessionId: id });
    const runId = await deploymentRunOf(id);
    await checkQuiet(api.services, 0);
    expect((await api.get(`/v1/sessions/${id}`)).body.status).toBe('running');
    await workflowOf(id).terminate('operator');
    await checkQuiet(api.services);
    expect((await api.get(`/v1/sessions/${id}`)).body.status).toBe('running');
    await checkQuiet(api.services, 0);

    expect((await api.get(`/v1/sessions/${id}`)).body.status).toBe('terminated');
    expect(await one('SELECT state, stop_reason FROM turns WHERE session_id = $1', id)).toEqual({
      state: 'failed',
      stop_reason: { type: 'retries_exhausted' },
    });
    expect(await inputsOf(id)).toEqual([{ state: 'failed', reason: 'its workflow has ended' }]);
    expect(await one('SELECT state FROM effects WHERE session_id = $1', id)).toEqual({ state: 'denied' });
    expect((await api.get(`/v1/approvals/${approvalId}`)).body.state).toBe('cancelled');
    expect(await one('SELECT revoked_at IS NOT NULL AS revoked FROM virtual_keys WHERE id = $1', key.id)).toEqual({
      revoked: true,
    });
    expect(await one('SELECT status, error FROM deployment_runs WHERE id = $1', runId)).toMatchObject({
      status: 'failed',
      error: { type: 'session_lost' },
    });
    const types = await eventTypes(id);
    expect(types.at(-1)).toBe('session.status_terminated');
    await checkQuiet(api.services, 0);
    expect(await eventTypes(id)).toEqual(types);
    expect((await workflowOf(id).describe()).status.name).toBe('TERMINATED');
  });

  it('whose history Temporal lost fails its turn and goes on with what waits', async () => {
    const { id } = await atWork();
    const [queued] = await withTransaction(api.pool, (tx) =>
      acceptMessages(tx, id, [{ type: 'user.message', content: [{ type: 'text', text: 'next' }] }]),
    );
    await markDelivered(api.pool, [queued?.id ?? '']);
    await forget(id);
    await checkQuiet(api.services, 0);

    expect((await workflowOf(id).describe()).status.name).toBe('RUNNING');
    expect(await inputsOf(id)).toEqual([
      { state: 'failed', reason: 'the workflow of this turn was lost' },
      { state: 'delivered', reason: null },
    ]);
    expect(await one('SELECT state FROM turns WHERE session_id = $1', id)).toEqual({ state: 'failed' });
    expect((await api.get(`/v1/sessions/${id}`)).body.status).toBe('idle');
    await workflowOf(id).terminate('test over');
  });

  it('is left alone while Temporal is away', async () => {
    const away = await testApi({ temporalAddress: '127.0.0.1:1' });
    try {
      const id = await makeSession(away, hello);
      await withTransaction(away.pool, (tx) => setRunning(tx, id));
      await checkQuiet(away.services, 0);
      expect((await away.get(`/v1/sessions/${id}`)).body.status).toBe('running');
    } finally {
      await away.close();
    }
  });
});

describe('an idle session', () => {
  it('that waits for a person and whose workflow was terminated ends with all it held', async () => {
    const { id, approvalId } = await atWork();
    const effectId = ((await one('SELECT id FROM effects WHERE session_id = $1', id)) as { id: string }).id;
    const key = await mintVirtualKey(api.pool, { teamId: 'team-a', userId: 'ada', sessionId: id });
    const sandboxId = newId('sandbox');
    await insertSandbox(api.pool, { id: sandboxId, sessionId: id, provider: 'local', leaseMs: 3_600_000 });
    await withTransaction(api.pool, (tx) =>
      setIdle(tx, id, { type: 'requires_action', event_ids: [effectId] }, 'pause/1/1/0'),
    );
    await checkAll();
    expect(await statusOf(id)).toBe('idle');
    await workflowOf(id).terminate('operator');
    await checkNext(api.services, {});
    expect(await statusOf(id)).toBe('idle');
    await checkAll();

    expect(await statusOf(id)).toBe('terminated');
    expect((await api.get(`/v1/approvals/${approvalId}`)).body.state).toBe('cancelled');
    expect(await one('SELECT state FROM effects WHERE session_id = $1', id)).toEqual({ state: 'denied' });
    expect(await one('SELECT state FROM turns WHERE session_id = $1', id)).toEqual({ state: 'failed' });
    expect(await inputsOf(id)).toEqual([{ state: 'failed', reason: 'its workflow has ended' }]);
    expect(await one('SELECT revoked_at IS NOT NULL AS revoked FROM virtual_keys WHERE id = $1', key.id)).toEqual({
      revoked: true,
    });
    expect((await listDoomedSandboxes(api.pool, 100)).map((row) => row.id)).toContain(sandboxId);
    expect((await eventTypes(id)).at(-1)).toBe('session.status_terminated');
  });

  it('whose history Temporal lost stays: its next message starts a workflow', async () => {
    const id = await makeSession(api);
    await api.services.delivery.drain();
    await forget(id);
    await checkAll();
    expect(await statusOf(id)).toBe('idle');
    await api.post(`/v1/sessions/${id}/events`, { events: [{ type: 'user.message', content: 'again' }] }).expect(200);
    await api.services.delivery.drain();
    expect((await workflowOf(id).describe()).status.name).toBe('RUNNING');
    await workflowOf(id).terminate('test over');
  });

  it('is found page by page, however many there are', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => makeSession(api)));
    await api.services.delivery.drain();
    for (const id of ids) await workflowOf(id).terminate('operator');
    const walk: Walk = {};
    let pages = 0;
    do {
      await checkNext(api.services, walk, { quietMs: 0, limit: 2 });
      pages += 1;
    } while (walk.session !== undefined);
    expect(pages).toBeGreaterThan(2);
    for (const id of ids) expect(await statusOf(id)).toBe('terminated');
  });
});

describe('a deployment run', () => {
  it('whose workflow was terminated has failed, and its row says why', async () => {
    const { id, workflow } = await run();
    await checkAll();
    expect(await runOf(id)).toEqual(RUNNING);
    await workflow.terminate('operator');
    await checkNext(api.services, {});
    expect(await runOf(id)).toEqual(RUNNING);
    await checkAll();
    expect(await runOf(id)).toEqual({
      status: 'failed',
      error: { type: 'run_lost', message: 'the workflow of this run has ended without a result' },
      ended: true,
    });
  });

  it('whose workflow has not begun yet is left to delivery', async () => {
    const away = await testApi({ temporalAddress: '127.0.0.1:1' });
    try {
      const { agentId, environmentId } = await makeAgent(away);
      const made = await away
        .post('/v1/deployments', { name: 'later', agent: agentId, environment_id: environmentId, ...hello })
        .expect(200);
      await away.post(`/v1/deployments/${made.body.id as string}/run`).expect(200);
      const [unstarted] = (await away.pool.query('SELECT id, workflow_id FROM deployment_runs')).rows as {
        id: string;
        workflow_id: string;
      }[];
      // Seen by an api that reaches Temporal, which knows nothing of it.
      const { workflow_id: workflowId, id } = unstarted ?? { id: '', workflow_id: '' };
      const lost = { pool: away.pool, client: api.services.temporal.client };
      await endLostRun(lost, { id, workflowId, sessionStarted: false });
      const { rows } = await away.pool.query('SELECT status FROM deployment_runs WHERE id = $1', [id]);
      expect(rows).toEqual([{ status: 'running' }]);
    } finally {
      await away.close();
    }
  });
});

const checkAll = (): Promise<void> => checkNext(api.services, {}, { quietMs: 0 });
const statusOf = async (id: string): Promise<unknown> => (await api.get(`/v1/sessions/${id}`)).body.status;
const runOf = async (id: string): Promise<unknown> =>
  one('SELECT status, error, ended_at IS NOT NULL AS ended FROM deployment_runs WHERE id = $1', id);
const RUNNING = { status: 'running', error: null, ended: false };

/** A run made by hand; no worker takes its workflow. */
async function run(): Promise<{ id: string; sessionId: string; workflow: ReturnType<typeof workflowOf> }> {
  const { agentId, environmentId } = await makeAgent(api);
  const made = await api
    .post('/v1/deployments', { name: 'by hand', agent: agentId, environment_id: environmentId, ...hello })
    .expect(200);
  const { body } = await api.post(`/v1/deployments/${made.body.id as string}/run`).expect(200);
  await api.services.delivery.drain();
  const { id, session_id: sessionId } = body as { id: string; session_id: string };
  const { workflow_id: workflowId } = (await one('SELECT workflow_id FROM deployment_runs WHERE id = $1', id)) as {
    workflow_id: string;
  };
  return { id, sessionId, workflow: api.services.temporal.client.workflow.getHandle(workflowId) };
}

/** Deletes the workflow from Temporal and waits until it is unknown there. */
async function forget(id: string): Promise<void> {
  const { client } = api.services.temporal;
  await client.workflowService.deleteWorkflowExecution({
    namespace: 'default',
    workflowExecution: { workflowId: sessionWorkflowId(id) },
  });
  await expect
    .poll(
      () =>
        workflowOf(id)
          .describe()
          .then(
            () => 'known',
            () => 'unknown',
          ),
      { timeout: 60_000 },
    )
    .toBe('unknown');
}

async function deploymentRunOf(sessionId: string): Promise<string> {
  const { agentId, environmentId } = await makeAgent(api);
  const made = await api
    .post('/v1/deployments', { name: 'nightly', agent: agentId, environment_id: environmentId, ...hello })
    .expect(200);
  const id = newId('deploymentRun');
  await insertRun(api.pool, {
    id,
    teamId: 'team-a',
    deploymentId: made.body.id as string,
    agentId,
    agentVersion: 1,
    sessionId,
    trigger: { type: 'manual' },
    workflowId: `deployment/none/${id}`,
    error: null,
  });
  return id;
}

async function eventTypes(id: string): Promise<string[]> {
  const { body } = await api.get(`/v1/sessions/${id}/events?limit=100`);
  return (body.data as { type: string }[]).map((event) => event.type);
}
