import { ScheduleNotFoundError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { specOf, upcomingRuns } from '../../api/schedules.ts';
import { sweepOnce } from '../../api/sweep.ts';
import { withTransaction } from '../../db/pool.ts';
import { createDeploymentSession, listUnsynced } from '../../db/queries/deployments.ts';
import { deploymentScheduleId, manualRunWorkflowId } from '../../workflows/ids.ts';
import type { TestApi } from './support.ts';
import { makeAgent, testApi } from './support.ts';

let api: TestApi;
let made: { agentId: string; environmentId: string };
const deploymentIds: string[] = [];
beforeAll(async () => {
  api = await testApi();
  made = await makeAgent(api);
});
afterAll(async () => {
  for (const id of deploymentIds)
    await handleOf(id)
      .delete()
      .catch(() => undefined);
  await api.close();
});

const handleOf = (id: string) => api.services.temporal.client.schedule.getHandle(deploymentScheduleId(id));
const body = (extra: object = {}) => ({
  name: 'Nightly',
  agent: made.agentId,
  environment_id: made.environmentId,
  initial_events: [{ type: 'user.message', content: [{ type: 'text', text: 'Tidy up' }] }],
  ...extra,
});
async function create(extra: object = {}): Promise<string> {
  const answer = await api.post('/v1/deployments', body(extra)).expect(200);
  deploymentIds.push(answer.body.id as string);
  return answer.body.id as string;
}
const cron = (expression: string, timezone = 'Europe/Berlin') => ({ schedule: { type: 'cron', expression, timezone } });

describe('schedules', () => {
  it('follow their deployment: create, edit, pause, unpause, archive', async () => {
    const id = await create(cron('0 9 * * 1-5'));
    const before = await handleOf(id).describe();
    expect(before.state.paused).toBe(false);
    expect(before.policies.overlap).toBe('SKIP');
    expect(before.policies.catchupWindow).toBe(600_000);
    expect(before.action).toMatchObject({
      workflowType: 'deploymentRun',
      taskQueue: api.taskQueue,
      args: [{ deploymentId: id }],
    });
    const read = (await api.get(`/v1/deployments/${id}`).expect(200)).body as {
      schedule: { upcoming_runs_at: string[]; last_run_at: null };
    };
    expect(read.schedule.upcoming_runs_at).toHaveLength(5);
    expect(read.schedule.upcoming_runs_at).toEqual(
      upcomingRuns({
        schedule: { type: 'cron', expression: '0 9 * * 1-5', timezone: 'Europe/Berlin' },
        status: 'active',
        archivedAt: null,
      }),
    );

    await api.post(`/v1/deployments/${id}`, cron('30 6 1 * *', 'UTC')).expect(200);
    const next = (await handleOf(id).describe()).info.nextActionTimes[0];
    expect([next?.getUTCDate(), next?.getUTCHours(), next?.getUTCMinutes()]).toEqual([1, 6, 30]);

    const paused = await api.post(`/v1/deployments/${id}/pause`).expect(200);
    expect(paused.body).toMatchObject({
      status: 'paused',
      paused_reason: { type: 'manual' },
      schedule: { upcoming_runs_at: [] },
    });
    expect((await handleOf(id).describe()).state.paused).toBe(true);
    expect((await api.post(`/v1/deployments/${id}/unpause`).expect(200)).body).toMatchObject({
      status: 'active',
      paused_reason: null,
    });
    expect((await handleOf(id).describe()).state.paused).toBe(false);

    await api.post(`/v1/deployments/${id}/archive`).expect(200);
    await expect(handleOf(id).describe()).rejects.toBeInstanceOf(ScheduleNotFoundError);
    expect((await api.post(`/v1/deployments/${id}/run`).expect(409)).body.error.code).toBe('archived');
  });

  it('are repaired by the sweep when a crash left a row without one', async () => {
    const id = await create(cron('*/5 * * * *', 'UTC'));
    await handleOf(id).delete();
    await api.pool.query('UPDATE deployments SET schedule_synced_revision = 0 WHERE id = $1', [id]);
    await sweepOnce(api.services, 0);
    expect((await handleOf(id).describe()).info.nextActionTimes.length).toBeGreaterThan(0);
    await api.post(`/v1/deployments/${id}`, { schedule: null }).expect(200);
    await expect(handleOf(id).describe()).rejects.toBeInstanceOf(ScheduleNotFoundError);
  });

  it('of a deployment that has none leave nothing to tell Temporal, until it has one', async () => {
    const away = await testApi({ temporalAddress: '127.0.0.1:1' });
    try {
      const { agentId, environmentId } = await makeAgent(away);
      const fields = body({ agent: agentId, environment_id: environmentId });
      const path = `/v1/deployments/${(await away.post('/v1/deployments', fields).expect(200)).body.id}`;
      await away.post(path, { name: 'Another' }).expect(200);
      for (const change of ['pause', 'unpause', 'archive']) await away.post(`${path}/${change}`).expect(200);
      // What could not be told would be here.
      expect(await listUnsynced(away.pool, -60_000, 10)).toEqual([]);
    } finally {
      await away.close();
    }
    const id = await create();
    await expect(handleOf(id).describe()).rejects.toBeInstanceOf(ScheduleNotFoundError);
    await api.post(`/v1/deployments/${id}`, cron('0 9 * * *', 'UTC')).expect(200);
    expect((await handleOf(id).describe()).state.paused).toBe(false);
    await api.post(`/v1/deployments/${id}/archive`).expect(200);
    await expect(handleOf(id).describe()).rejects.toBeInstanceOf(ScheduleNotFoundError);
  });

  it('fire on either day field, as POSIX says, also in Temporal', async () => {
    const schedule = { type: 'cron' as const, expression: '0 0 13 * 5', timezone: 'UTC' };
    expect(specOf(schedule).cronExpressions).toEqual(['0 0 13 * *', '0 0 * * 5']);
    const id = await create({ schedule });
    const inTemporal = (await handleOf(id).describe()).info.nextActionTimes.slice(0, 5).map((at) => at.toISOString());
    expect(inTemporal).toEqual(upcomingRuns({ schedule, status: 'active', archivedAt: null }));
  });

  it('agree with Temporal on many expressions', async () => {
    for (const expression of [
      '*/15 * * * *',
      '0 0 * * 7',
      '0 12 * * SUN',
      '5 4 * JAN,JUL *',
      '0 22 * * 1-5',
      '23 0-20/2 * * *',
      '0 0 29 2 *',
    ]) {
      const schedule = { type: 'cron' as const, expression, timezone: 'America/New_York' };
      const id = await create({ schedule });
      const inTemporal = (await handleOf(id).describe()).info.nextActionTimes.slice(0, 3).map((at) => at.toISOString());
      expect(inTemporal, expression).toEqual(
        upcomingRuns({ schedule, status: 'active', archivedAt: null }).slice(0, 3),
      );
    }
  });

  it('are refused by field when they cannot be', async () => {
    const cases: [object, string][] = [
      [cron('* * * *'), 'schedule.expression'],
      [cron('0 0 * * * *'), 'schedule.expression'],
      [cron('61 * * * *'), 'schedule.expression'],
      [cron('@daily'), 'schedule.expression'],
      [cron('0 0 30 2 *'), 'schedule.expression'],
      [cron('0 9 * * *', 'Mars/Olympus'), 'schedule.timezone'],
      [cron('0 9 * * *', 'europe/berlin'), 'schedule.timezone'],
      [{ environment_id: 'env_none' }, ''],
    ];
    for (const [extra, field] of cases) {
      const refused = await api.post('/v1/deployments', body(extra));
      expect(refused.status, JSON.stringify(extra)).toBe(field === '' ? 404 : 400);
      if (field !== '') expect(refused.body.error.field).toBe(field);
    }
  });
});

describe('runs', () => {
  it('by hand: run, session and first input in one go, and the run workflow started once', async () => {
    const id = await create();
    const run = await api.post(`/v1/deployments/${id}/run`).set('idempotency-key', 'run-1').expect(200);
    expect(run.body).toMatchObject({
      type: 'deployment_run',
      deployment_id: id,
      trigger_context: { type: 'manual' },
      status: 'running',
      error: null,
      agent: { type: 'agent', id: made.agentId, version: 1 },
    });
    const again = await api.post(`/v1/deployments/${id}/run`).set('idempotency-key', 'run-1').expect(200);
    expect(again.body).toEqual(run.body);
    const sessionId = run.body.session_id as string;
    const session = await api.get(`/v1/sessions/${sessionId}`).expect(200);
    expect(session.body).toMatchObject({ deployment_id: id, title: 'Nightly' });
    const workflowId = manualRunWorkflowId(id, run.body.id as string);
    const handle = api.services.temporal.client.workflow.getHandle(workflowId);
    expect((await handle.describe()).status.name).toBe('RUNNING');
    // The run starts the session itself; the sweep must not do it behind its back.
    await sweepOnce(api.services, 0);
    await expect(api.services.temporal.client.workflow.getHandle(`session/${sessionId}`).describe()).rejects.toThrow();
    // A run that is gone starts nothing any more: the sweep takes its session over.
    await handle.terminate('operator');
    await sweepOnce(api.services, 0);
    const taken = api.services.temporal.client.workflow.getHandle(`session/${sessionId}`);
    expect((await taken.describe()).status.name).toBe('RUNNING');
    await taken.terminate('test over');

    const listed = await api
      .get(`/v1/deployment_runs?deployment_id=${id}&has_error=false&trigger_type=manual`)
      .expect(200);
    expect((listed.body.data as { id: string }[]).map((item) => item.id)).toEqual([run.body.id]);
    expect((await api.get(`/v1/deployment_runs?deployment_id=${id}&has_error=true`)).body.data).toEqual([]);
    expect((await api.get(`/v1/sessions?deployment_id=${id}`)).body.data).toHaveLength(1);
  });

  it('reach the repositories of their environment, as sessions do that are opened by hand', async () => {
    const repositories = [{ url: 'https://github.com/acme/shop' }];
    const config = { type: 'cloud', repositories, networking: { type: 'limited', allowed_hosts: ['example.com'] } };
    const environment = (await api.post('/v1/environments', { name: 'Box', config }).expect(200)).body.id as string;
    const id = await create({ environment_id: environment });
    const run = await api.post(`/v1/deployments/${id}/run`).expect(200);
    const opened = await api.post('/v1/sessions', { agent: made.agentId, environment_id: environment }).expect(200);
    const { rows } = await api.pool.query<{ networking: { rules: object[] } }>(
      `SELECT environment->'networking' AS networking FROM sessions WHERE id = ANY($1)`,
      [[run.body.session_id, opened.body.id]],
    );
    expect(rows).toHaveLength(2);
    expect(rows[0]).toEqual(rows[1]);
    expect(rows[0]?.networking.rules).toEqual([
      { host: 'github.com', methods: null, paths: ['/acme/shop/**', '/acme/shop.git/**'], action: 'allow' },
    ]);
    const workflowId = manualRunWorkflowId(id, run.body.id as string);
    await api.services.temporal.client.workflow.getHandle(workflowId).terminate('test over');
  });

  it('by schedule: idempotent on the workflow id, nothing while paused, an error pauses', async () => {
    const id = await create();
    const firing = (workflowId: string) =>
      withTransaction(api.pool, (tx) =>
        createDeploymentSession(tx, {
          deploymentId: id,
          workflowId,
          trigger: { type: 'schedule', scheduled_at: '2026-11-21T09:00:00Z' },
        }),
      );
    const first = await firing(`deployment/${id}/scheduled-1`);
    const retried = await firing(`deployment/${id}/scheduled-1`);
    expect(first).toMatchObject({ created: true });
    expect(retried).toEqual({ ...first, created: false });

    await api.post(`/v1/deployments/${id}/pause`).expect(200);
    expect(await firing(`deployment/${id}/scheduled-2`)).toBeNull();
    await api.post(`/v1/deployments/${id}/unpause`).expect(200);

    await api.pool.query('UPDATE agents SET archived_at = now() WHERE id = $1', [made.agentId]);
    const failed = await firing(`deployment/${id}/scheduled-3`);
    expect(failed).toMatchObject({ sessionId: null, created: true });
    const run = await api.get(`/v1/deployment_runs/${failed?.runId ?? ''}`).expect(200);
    expect(run.body).toMatchObject({ status: 'failed', session_id: null, error: { type: 'agent_archived_error' } });
    expect((await api.get(`/v1/deployments/${id}`)).body).toMatchObject({
      status: 'paused',
      paused_reason: { type: 'error', error: { type: 'agent_archived_error' } },
    });
    await api.pool.query('UPDATE agents SET archived_at = NULL WHERE id = $1', [made.agentId]);
  });
});
