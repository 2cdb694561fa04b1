import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { makeAgent, testApi, type TestApi } from '../api/support.ts';
import { FakeHarness, fakeMessage, type FakeStep } from '../doubles/harness.ts';
import { ASKING, BED_PATIENCE_MS, BedDriver, TURNS_OVER, toolset } from '../support/bed-driver.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

let api: TestApi;
let bed: WorkerBed;
let driver: BedDriver;
let harness: FakeHarness;
beforeAll(async () => {
  api = await testApi();
  bed = await workerBed(api);
  driver = new BedDriver(api);
  await bed.start();
}, BED_PATIENCE_MS);
afterAll(async () => {
  await bed.close();
  await api.close();
}, BED_PATIENCE_MS);
beforeEach(() => {
  harness = new FakeHarness();
  bed.deps.harness.driver = () => harness;
  bed.deps.harness.holdMs = 600_000;
});

type Policy = 'always_allow' | 'always_ask';

async function open(steps: FakeStep[], policy: Policy = 'always_allow', limits: object = {}): Promise<string> {
  const { agentId, environmentId } = await makeAgent(api, { tools: [toolset(policy)], system: 'Be brief.' });
  // The api takes agents of what has a driver in a release; this one is the test's.
  await api.pool.query(
    `UPDATE agent_versions SET definition = definition || '{"harness":"acp","placement":"inline"}' WHERE agent_id = $1`,
    [agentId],
  );
  const made = await api
    .post('/v1/sessions', {
      agent: agentId,
      environment_id: environmentId,
      limits,
      initial_events: [fakeMessage(steps)],
    })
    .expect(200);
  return made.body.id as string;
}

interface Logged {
  id: string;
  type: string;
  payload: Record<string, never> & { content: { text: string }[]; tool_use_id: string; name: string };
}

async function events(session: string, types: string[]): Promise<Logged[]> {
  const { rows } = await api.pool.query<Logged>(
    'SELECT id, type, payload FROM events WHERE session_id = $1 AND type = ANY($2) ORDER BY seq',
    [session, types],
  );
  return rows;
}

const said = async (session: string): Promise<string[]> =>
  (await events(session, ['agent.message'])).map(({ payload }) => payload.content.map(({ text }) => text).join(''));

async function decide(session: string, result: 'allow' | 'deny', message?: string): Promise<void> {
  await driver.until('it asks', session, ASKING);
  const { rows } = await api.pool.query<{ effect_id: string }>(
    `SELECT effect_id FROM approvals WHERE session_id = $1 AND state = 'pending'`,
    [session],
  );
  for (const { effect_id: id } of rows) {
    const deny = message === undefined ? {} : { deny_message: message };
    await driver.send(session, { type: 'user.tool_confirmation', tool_use_id: id, result, ...deny });
  }
}

const over = (session: string): Promise<void> => driver.until('its turns are over', session, TURNS_OVER);
const effects = async (session: string): Promise<{ tool: string; state: string; generation: number }[]> =>
  (
    await api.pool.query<{ tool: string; state: string; generation: number }>(
      'SELECT tool, state, generation FROM effects WHERE session_id = $1 ORDER BY turn, step',
      [session],
    )
  ).rows;

describe('a session of a harness', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('has three turns with one message each, a model of its own, and the same place every time', async () => {
    const session = await open([{ say: 'one' }]);
    await over(session);
    await driver.send(session, fakeMessage([{ say: 'two' }], { model: 'another' }));
    await over(session);
    await driver.send(session, fakeMessage([{ say: 'three' }]));
    await over(session);
    expect(await driver.turnEnds(session)).toEqual(['end_turn', 'end_turn', 'end_turn']);
    expect(await said(session)).toEqual(['one', 'two', 'three']);
    expect(harness.told.map(({ model }) => model)).toEqual(['scripted', 'another', 'scripted']);
    expect(new Set(harness.told.map(({ messageId }) => messageId)).size).toBe(3);
    expect(harness.told.every(({ resumed, continuation }) => !resumed && continuation === null)).toBe(true);
    const [stored] = [...harness.stored.values()];
    expect(stored?.spec).toMatchObject({ hands: 'platform', placement: 'inline' });
    expect(stored?.spec.systemPrompt).toMatch(/^Be brief\.\n\nYour tools run in an isolated sandbox/);
    const { rows } = await api.pool.query('SELECT octet_length(state) AS size, exported_turn FROM harness_sessions');
    expect(rows).toMatchObject([{ exported_turn: 3 }]);
  });

  it('runs our tools in its sandbox, as effects, and tells them once', async () => {
    const session = await open([{ call: 'bash', input: { command: 'echo $((6*7))' } }, { say: 'done' }]);
    await over(session);
    expect(harness.results).toEqual(['42\n']);
    expect(await effects(session)).toEqual([{ tool: 'bash', state: 'succeeded', generation: 1 }]);
    const log = await events(session, ['agent.tool_use', 'agent.tool_result', 'agent.message']);
    expect(log.map(({ type }) => type)).toEqual(['agent.tool_use', 'agent.tool_result', 'agent.message']);
    const { rows } = await api.pool.query(
      'SELECT delivered_at IS NOT NULL AS delivered FROM harness_calls WHERE session_id = $1',
      [session],
    );
    expect(rows).toEqual([{ delivered: true }]);
  });

  it('asks a person for a tool of its own, and hears yes and no', async () => {
    const steps = [
      { own: 'bash', input: { command: 'first' } },
      { own: 'bash', input: { command: 'second' } },
      { say: 'done' },
    ];
    const session = await open(steps, 'always_ask');
    await decide(session, 'allow');
    await driver.until(
      'the first has run',
      session,
      `EXISTS (SELECT 1 FROM effects e WHERE e.session_id = s.id AND e.state = 'succeeded')`,
    );
    await decide(session, 'deny', 'not that one');
    await over(session);
    expect(harness.ran).toEqual([{ command: 'first' }]);
    expect(harness.results).toEqual(['ran {"command":"first"}', 'denied: not that one']);
    expect((await effects(session)).map(({ state }) => state)).toEqual(['succeeded', 'denied']);
    const { rows } = await api.pool.query(`SELECT state FROM approvals WHERE session_id = $1 ORDER BY created_at`, [
      session,
    ]);
    expect(rows).toEqual([{ state: 'consumed' }, { state: 'denied' }]);
    const uses = await events(session, ['agent.tool_use']);
    expect(uses).toHaveLength(2);
  });
});
