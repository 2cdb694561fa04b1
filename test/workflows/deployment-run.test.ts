import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sweepOnce } from '../../api/sweep.ts';
import { manualRunWorkflowId } from '../../workflows/ids.ts';
import { makeAgent, testApi, type TestApi } from '../api/support.ts';
import { scriptMessage, type ScriptStep } from '../support/session-driver.ts';
import { eventually } from '../support/stack.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

const PATIENCE_MS = 120_000;

let api: TestApi;
let bed: WorkerBed;
beforeAll(async () => {
  api = await testApi();
  bed = await workerBed(api);
  await bed.start();
});
afterAll(async () => {
  await bed.close();
  await api.close();
});

interface Run {
  id: string;
  deploymentId: string;
  sessionId: string;
}

async function run(steps: ScriptStep[]): Promise<Run> {
  const { agentId, environmentId } = await makeAgent(api);
  const made = await api
    .post('/v1/deployments', {
      name: 'by hand',
      agent: agentId,
      environment_id: environmentId,
      initial_events: [scriptMessage(steps)],
    })
    .expect(200);
  const deploymentId = made.body.id as string;
  const { body } = await api.post(`/v1/deployments/${deploymentId}/run`).expect(200);
  return { id: body.id as string, deploymentId, sessionId: body.session_id as string };
}

const workflowOf = ({ id, deploymentId }: Run) =>
  api.services.temporal.client.workflow.getHandle(manualRunWorkflowId(deploymentId, id));

async function until(what: string, sql: string, values: unknown[]): Promise<void> {
  await eventually(what, async () => ((await api.pool.query(sql, values)).rowCount ?? 0) > 0, PATIENCE_MS);
}

const closed = (id: string): Promise<void> =>
  until('the run has ended', `SELECT 1 FROM deployment_runs WHERE id = $1 AND status <> 'running'`, [id]);

const get = async (id: string): Promise<unknown> => (await api.get(`/v1/deployment_runs/${id}`).expect(200)).body;

describe('a deployment run', { timeout: 2 * PATIENCE_MS }, () => {
  it('succeeds with the first turn of its session', async () => {
    const made = await run([{ text: 'done' }]);
    await closed(made.id);
    expect(await get(made.id)).toMatchObject({ status: 'succeeded', error: null });
    await workflowOf(made).result();
  });

  it('that is cancelled in Temporal interrupts its session, and its row says so', async () => {
    const made = await run([{ text: 'slow', chunks: 1_000, chunkMs: 500 }]);
    await until('the model is asked', `SELECT 1 FROM model_calls WHERE session_id = $1`, [made.sessionId]);
    await workflowOf(made).cancel();
    await closed(made.id);
    expect(await get(made.id)).toMatchObject({ status: 'failed', error: { type: 'run_cancelled' } });
    await expect(workflowOf(made).result()).rejects.toThrow();
    expect((await workflowOf(made).describe()).status.name).toBe('CANCELLED');
    await until('the turn is over', `SELECT 1 FROM turns WHERE session_id = $1 AND state = 'interrupted'`, [
      made.sessionId,
    ]);
    expect((await api.get(`/v1/sessions/${made.sessionId}`)).body).toMatchObject({ status: 'idle' });
  });

  it('that is cancelled while no worker is there ends so when one comes', async () => {
    await bed.stop();
    const made = await run([{ text: 'unused', delayMs: 60_000 }]);
    await api.services.delivery.drain();
    await workflowOf(made).cancel();
    await bed.start();
    await closed(made.id);
    expect(await get(made.id)).toMatchObject({ status: 'failed', error: { type: 'run_cancelled' } });
    // Its session had not begun, and nobody is to begin it later.
    expect((await api.get(`/v1/sessions/${made.sessionId}`)).body).toMatchObject({ status: 'terminated' });
    await sweepOnce(api.services, 0);
    const { rows } = await api.pool.query('SELECT count(*)::int AS n FROM turns WHERE session_id = $1', [
      made.sessionId,
    ]);
    expect(rows).toEqual([{ n: 0 }]);
  });
});
