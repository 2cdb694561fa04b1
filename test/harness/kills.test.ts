import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { registerSearchAttributes } from '../../worker/temporal-setup.ts';
import { makeAgent, testApi, type TestApi } from '../api/support.ts';
import { FakeHarness, fakeMessage, type FakeStep } from '../doubles/harness.ts';
import { ASKING, BED_PATIENCE_MS, BedDriver, TURNS_OVER, toolset } from '../support/bed-driver.ts';
import { harnessWorkers, type HarnessWorkers } from '../support/harness-worker.ts';
import { Recorder } from '../support/recorder.ts';

let api: TestApi;
let workers: HarnessWorkers;
let driver: BedDriver;
let harness: FakeHarness;
beforeAll(async () => {
  api = await testApi();
  await registerSearchAttributes(api.services.temporal.client, 'default');
  workers = await harnessWorkers(api, () => harness);
  driver = new BedDriver(api);
}, BED_PATIENCE_MS);
afterAll(async () => {
  await workers.close();
  await api.close();
}, BED_PATIENCE_MS);
beforeEach(() => {
  harness = new FakeHarness();
});

async function open(steps: FakeStep[], policy: 'always_allow' | 'always_ask'): Promise<string> {
  const { agentId, environmentId } = await makeAgent(api, { tools: [toolset(policy)] });
  await api.pool.query(
    `UPDATE agent_versions SET definition = definition || '{"harness":"acp","placement":"inline"}' WHERE agent_id = $1`,
    [agentId],
  );
  const made = await api
    .post('/v1/sessions', { agent: agentId, environment_id: environmentId, initial_events: [fakeMessage(steps)] })
    .expect(200);
  return made.body.id as string;
}

async function allow(session: string): Promise<void> {
  await driver.until('it asks', session, ASKING);
  const { id } = await driver.one<{ id: string }>(
    `SELECT effect_id AS id FROM approvals WHERE session_id = $1 AND state = 'pending'`,
    session,
  );
  await driver.send(session, { type: 'user.tool_confirmation', tool_use_id: id, result: 'allow' });
}

const started = `EXISTS (SELECT 1 FROM effects e WHERE e.session_id = s.id AND e.state = 'started')`;
const COMMAND = {
  command: 'echo begun >> /workspace/runs; until [ -e /workspace/go ]; do sleep 0.05; done; cat /workspace/runs',
};
const QUICK = { command: 'echo begun >> /workspace/runs; cat /workspace/runs' };

/** Who dies: the worker is SIGKILLed; the harness loses all that runs in it. */
type Victims = 'worker' | 'harness' | 'both';

async function die(victims: Victims): Promise<void> {
  if (victims !== 'worker') harness.kill();
  if (victims !== 'harness') {
    await workers.kill();
    if (victims === 'both') harness.kill();
    await workers.start();
  }
}

async function endedOnce(session: string): Promise<void> {
  await driver.until('its turn is over', session, TURNS_OVER);
  expect(await driver.turnEnds(session)).toEqual(['end_turn']);
  const { rows } = await api.pool.query<{ type: string; n: number }>(
    `SELECT type, count(*)::int AS n FROM events WHERE session_id = $1 GROUP BY type`,
    [session],
  );
  const count = Object.fromEntries(rows.map(({ type, n }) => [type, n]));
  expect(count).toMatchObject({ 'agent.message': 2, 'agent.tool_use': 1, 'agent.tool_result': 1 });
  const ends = await api.pool.query(
    `SELECT 1 FROM events WHERE session_id = $1 AND type = 'session.status_idle' AND payload->'stop_reason'->>'type' = 'end_turn'`,
    [session],
  );
  expect(ends.rowCount).toBe(1);
  // The prompt is in the harness's history once, and the command ran once.
  expect([...harness.stored.values()].map(({ turns }) => turns.length)).toEqual([1]);
  expect(harness.results.at(-1)).toBe('begun\n');
  const effects = await api.pool.query('SELECT state, generation FROM effects WHERE session_id = $1', [session]);
  expect(effects.rows).toEqual([{ state: 'succeeded', generation: 1 }]);
}

describe.each<Victims>(['worker', 'harness', 'both'])('SIGKILL of %s', { timeout: BED_PATIENCE_MS * 2 }, (victims) => {
  beforeAll(() => workers.start(), BED_PATIENCE_MS);
  afterAll(() => workers.kill(), BED_PATIENCE_MS);

  it('in the middle of a text', async () => {
    const steps = [{ say: 'a' }, { wait: 'text' }, { call: 'bash', input: QUICK }, { say: 'b' }];
    const session = await open(steps, 'always_allow');
    await harness.reached('text');
    await die(victims);
    harness.gate('text').resolve();
    await endedOnce(session);
  });

  it('while a person is asked', async () => {
    const session = await open([{ say: 'a' }, { call: 'bash', input: QUICK }, { say: 'b' }], 'always_ask');
    await driver.until('it asks', session, ASKING);
    await die(victims);
    await allow(session);
    await endedOnce(session);
  });

  it('while a tool runs', async () => {
    const session = await open([{ say: 'a' }, { call: 'bash', input: COMMAND }, { say: 'b' }], 'always_ask');
    await allow(session);
    await driver.until('it runs', session, started);
    await die(victims);
    const recorder = new Recorder(workers.home, async <T>(sql: string, values: unknown[] = []) => {
      return (await api.pool.query(sql, values)).rows as T[];
    });
    writeFileSync(path.join(await recorder.workspaceOf(session), 'go'), '');
    await endedOnce(session);
  });

  it('after the tool, before the answer', async () => {
    const steps = [{ say: 'a' }, { call: 'bash', input: QUICK }, { wait: 'after' }, { say: 'b' }];
    const session = await open(steps, 'always_ask');
    await allow(session);
    await harness.reached('after');
    await die(victims);
    harness.gate('after').resolve();
    await endedOnce(session);
  });
});
