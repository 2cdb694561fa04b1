import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import { getAgent } from '../../db/queries/agents.ts';
import { getEnvironment } from '../../db/queries/environments.ts';
import { markDelivered } from '../../db/queries/inputs.ts';
import { createSession, listAcceptedInputs, markWorkflowStarted, sessionArgs } from '../../db/queries/sessions.ts';
import { sessionWorkflowId } from '../../workflows/ids.ts';
import { inputMessage, sessionStart } from '../../workflows/start.ts';
import { makeAgent, testApi, type TestApi } from '../api/support.ts';
import { BED_PATIENCE_MS, BedDriver, toolset } from '../support/bed-driver.ts';
import { bash, scriptMessage, type ScriptStep } from '../support/session-driver.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

const OUTAGE_MS = 6_000;

let api: TestApi;
let bed: WorkerBed;
let driver: BedDriver;
beforeAll(async () => {
  api = await testApi();
  bed = await workerBed(api);
  driver = new BedDriver(api);
});
afterEach(() => bed.stop());
afterAll(async () => {
  await bed.close();
  await api.close();
});

/** A session that plays `steps`, as the api would start it, but with a model outage of seconds. */
async function open(steps: ScriptStep[]): Promise<string> {
  const made = await makeAgent(api, { tools: [toolset('always_allow')] });
  const [agent, environment] = [
    await getAgent(api.pool, 'team-a', made.agentId),
    await getEnvironment(api.pool, 'team-a', made.environmentId),
  ];
  const { type, content } = scriptMessage(steps);
  const row = await withTransaction(api.pool, (tx) =>
    createSession(tx, {
      teamId: 'team-a',
      createdBy: 'ada',
      agent,
      environment,
      title: null,
      metadata: {},
      budget: null,
      limits: {},
      vaultIds: [],
      deploymentId: null,
      labels: [],
      repo: null,
      trigger: 'api',
      initialEvents: [{ type, content: [{ type: 'text', text: content }] }],
    }),
  );
  await markWorkflowStarted(api.pool, row.id);
  const inputs = await listAcceptedInputs(api.pool, row.id, 10);
  const args = sessionArgs(row, inputs.map(inputMessage));
  const start = sessionStart(
    { ...args, limits: { ...args.limits, modelOutageMs: OUTAGE_MS } },
    { ...row, harness: 'native' },
    api.taskQueue,
  );
  await api.services.temporal.client.workflow.start('session', start);
  await markDelivered(
    api.pool,
    inputs.map((input) => input.eventId),
  );
  return row.id;
}

const turnOver = `EXISTS (SELECT 1 FROM turns t WHERE t.session_id = s.id AND t.state <> 'running')`;
const failedOnce = 'EXISTS (SELECT 1 FROM outages o WHERE o.session_id = s.id)';

const stopOf = async (session: string): Promise<string> =>
  (await driver.one<{ why: string }>(`SELECT stop_reason->>'type' AS why FROM turns WHERE session_id = $1`, session))
    .why;

async function scheduleToCloseOf(session: string, activity: string): Promise<number> {
  const handle = api.services.temporal.client.workflow.getHandle(sessionWorkflowId(session));
  const { events = [] } = await handle.fetchHistory();
  const scheduled = (events ?? []).map((event) => event.activityTaskScheduledEventAttributes);
  const found = scheduled.find((attributes) => attributes?.activityType?.name === activity);
  return Number(found?.scheduleToCloseTimeout?.seconds ?? 0) * 1_000;
}

describe('time without any worker', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('is no outage of the model: the step goes on where it was', async () => {
    const overloaded = { status: 529, type: 'overloaded_error', message: 'Overloaded', times: 3 };
    const session = await open([{ text: 'patient', error: overloaded }]);
    await bed.start();
    await driver.until('a first failure', session, failedOnce);
    await bed.stop();
    const longAgo = `(SELECT now() - failed_at > interval '${OUTAGE_MS + 2_000} ms' FROM outages o WHERE o.session_id = s.id)`;
    await driver.until('nobody looked for longer than the model may be away', session, longAgo);
    expect(await driver.one('SELECT status FROM sessions WHERE id = $1', session)).toEqual({ status: 'rescheduling' });
    await bed.start();
    await driver.until('the turn is over', session, turnOver);
    expect(await stopOf(session)).toBe('end_turn');
    expect(await driver.one('SELECT asked, billed FROM scripted_calls WHERE session_id = $1', session)).toEqual({
      asked: 4,
      billed: 1,
    });
    expect(await scheduleToCloseOf(session, 'modelStep')).toBeGreaterThan(LIMITS.turnWallClockMs);
  });

  it('does not lose a command: its own deadline ends it, and the next worker records that', async () => {
    const session = await open([
      { tools: [bash('echo begun; sleep 600', { timeout_ms: 3_000 })] },
      { text: 'went on' },
    ]);
    await bed.start();
    await driver.until(
      'the command runs',
      session,
      `EXISTS (SELECT 1 FROM effects e WHERE e.session_id = s.id AND e.state = 'started')`,
    );
    await bed.stop();
    const over = `(SELECT now() - started_at > interval '5 s' FROM effects e WHERE e.session_id = s.id)`;
    await driver.until('its deadline is over', session, over);
    await bed.start();
    await driver.until('the turn is over', session, turnOver);
    expect(await stopOf(session)).toBe('end_turn');
    const effect = await driver.one<object>(
      `SELECT state, generation, result->'content'->0->>'text' AS text FROM effects WHERE session_id = $1`,
      session,
    );
    expect(effect).toEqual({ state: 'failed', generation: 1, text: 'begun\n\n[killed after 3000 ms]' });
    expect(await scheduleToCloseOf(session, 'runEffect')).toBeGreaterThan(LIMITS.turnWallClockMs);
  });
});

describe('what is away for too long', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('a model: the turn fails when attempts have seen that for the limit, and says so', async () => {
    const overloaded = { status: 529, type: 'overloaded_error', message: 'Overloaded', times: 1_000 };
    const session = await open([{ text: 'never', error: overloaded }]);
    await bed.start();
    await driver.until('the turn is over', session, turnOver);
    expect(await stopOf(session)).toBe('retries_exhausted');
    const { reason } = await driver.one<{ reason: string }>('SELECT reason FROM inputs WHERE session_id = $1', session);
    expect(reason).toMatch(/^provider_unavailable: .*\(tried for \d+ seconds\)$/);
    const statuses = await api.pool.query(
      `SELECT payload->'error'->'retry_status'->>'type' AS retry FROM events
       WHERE session_id = $1 AND type = 'session.error' ORDER BY seq`,
      [session],
    );
    expect(statuses.rows[0]).toEqual({ retry: 'retrying' });
    expect(statuses.rows).toContainEqual({ retry: 'terminal' });
    expect(await driver.one('SELECT status FROM sessions WHERE id = $1', session)).toEqual({ status: 'idle' });
    expect(await driver.one('SELECT count(*)::int AS n FROM outages WHERE session_id = $1', session)).toEqual({ n: 0 });
  });

  it.each([
    ['that says so', new LonghaulError('sandbox_unavailable', 'the provider is down')],
    ['that does not answer', new DOMException('The operation was aborted due to timeout', 'TimeoutError')],
  ])(
    'a sandbox, of a provider %s: tried again for a while, then the turn fails with what to do',
    async (_how, thrown) => {
      const provider = bed.deps.sandboxProvider.bind(bed.deps);
      bed.deps.sandboxProvider = () => {
        throw thrown;
      };
      try {
        const [patient, late] = [
          await open([{ tools: [bash('echo back')] }, { text: 'went on' }]),
          await open([{ tools: [bash('echo never')] }, { text: 'unused' }]),
        ];
        await bed.start();
        await driver.until('a first failure', patient, failedOnce);
        await driver.until('a first failure', late, failedOnce);
        await api.pool.query('UPDATE outages SET away_ms = $2 WHERE session_id = $1', [late, LIMITS.sandboxOutageMs]);
        await driver.until('the turn is over', late, turnOver);
        expect(await stopOf(late)).toBe('retries_exhausted');
        const { reason } = await driver.one<{ reason: string }>(
          'SELECT reason FROM inputs WHERE session_id = $1',
          late,
        );
        expect(reason).toMatch(/^sandbox_unavailable: no sandbox for 15 minutes\. Run `longhaul doctor`/);
        bed.deps.sandboxProvider = provider;
        await driver.until('the turn is over', patient, turnOver);
        expect(await stopOf(patient)).toBe('end_turn');
      } finally {
        bed.deps.sandboxProvider = provider;
      }
    },
  );
});
