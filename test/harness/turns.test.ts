import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sessionWorkflowId } from '../../workflows/ids.ts';
import { makeAgent, testApi, type TestApi } from '../api/support.ts';
import { FakeHarness, fakeMessage, type FakeStep } from '../doubles/harness.ts';
import { ASKING, BED_PATIENCE_MS, BedDriver, TURNS_OVER, toolset } from '../support/bed-driver.ts';
import { eventually } from '../support/stack.ts';
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

  it('takes its history along to a machine that lacks the last turns, whether or not it knew the session', async () => {
    const here = bed.deps.harness.sessionsDir;
    const homes = [here, `${here}-elsewhere`];
    const machines = [harness, new FakeHarness()];
    const moveTo = (machine: number): void => {
      bed.deps.harness.sessionsDir = homes[machine] as string;
      bed.deps.harness.driver = () => machines[machine] as FakeHarness;
    };
    const known = (machine: number): number[] =>
      [...(machines[machine]?.stored.values() ?? [])].map(({ turns }) => turns.length);
    try {
      const session = await open([{ say: 'one' }]);
      await over(session);
      for (const [index, machine] of [1, 0, 0].entries()) {
        const turn = index + 2;
        moveTo(machine);
        await driver.send(session, fakeMessage([{ say: String(turn) }]));
        await over(session);
        expect(known(machine)).toEqual([turn]);
      }
      expect(known(1)).toEqual([2]);
      expect(machines.map(({ imported }) => imported)).toEqual([1, 1]);
    } finally {
      moveTo(0);
    }
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

/** The worker ends in order and another one begins: what it ran it has left. */
async function anotherWorker(): Promise<void> {
  await bed.stop();
  await bed.start();
}

const attempts = (): number[] => harness.told.map(({ attempt }) => attempt);
const questions = (count: number): string =>
  `${ASKING} AND (SELECT count(*) FROM approvals a WHERE a.session_id = s.id) = ${count}`;
const isParked = (): Promise<void> =>
  eventually('the harness is parked', () => harness.running.size === 0, BED_PATIENCE_MS);

async function endedOnce(session: string, stopReason = 'end_turn'): Promise<void> {
  expect(await driver.turnEnds(session)).toEqual([stopReason]);
  const idle = await events(session, ['session.status_idle']);
  const reasons = idle.map(({ payload }) => (payload as unknown as { stop_reason: { type: string } }).stop_reason.type);
  expect(reasons.filter((type) => type !== 'requires_action')).toHaveLength(1);
  // The harness has the message of the turn once.
  expect([...harness.stored.values()].map(({ turns }) => turns.length)).toEqual([1]);
}

describe('a turn of a harness', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('is found again by another worker: in the middle of a text, and with a question open', async () => {
    const steps = [{ say: 'a' }, { wait: 'text' }, { own: 'bash', input: { command: 'x' } }, { say: 'b' }];
    const session = await open(steps, 'always_ask');
    await harness.reached('text');
    await anotherWorker();
    harness.gate('text').resolve();
    await driver.until('it asks', session, ASKING);
    await anotherWorker();
    await decide(session, 'allow');
    await over(session);
    await endedOnce(session);
    expect(await said(session)).toEqual(['a', 'b']);
    expect(harness.ran).toEqual([{ command: 'x' }]);
    expect(await effects(session)).toMatchObject([{ state: 'succeeded', generation: 1 }]);
    expect(attempts().every((attempt) => attempt === 1)).toBe(true);
    // It went on all the time: words about an interruption would be a message of their own.
    expect(harness.told.map(({ continuation }) => continuation)).toEqual([null, null, null]);
  });

  it('is told by another worker what became of its calls, when it went down as well', async () => {
    harness.survivesWorkers = false;
    const steps = [{ call: 'bash', input: { command: 'echo done' } }, { wait: 'after' }, { say: 'b' }];
    harness.hidesResults = true;
    const session = await open(steps);
    await harness.reached('after');
    await anotherWorker();
    harness.gate('after').resolve();
    await over(session);
    await endedOnce(session);
    expect(attempts()).toEqual([1, 1]);
    expect(harness.told[1]).toMatchObject({ resumed: true });
    expect(harness.told[1]?.continuation).toContain('It was run. Its result:\ndone');
  });

  it('is parked while a person is waited for, and goes on with the answer after every process was away', async () => {
    bed.deps.harness.holdMs = 0;
    const steps = [
      { say: 'a' },
      { own: 'bash', input: { command: 'x' } },
      { call: 'bash', input: { command: 'echo y' } },
      { say: 'b' },
    ];
    const session = await open(steps, 'always_ask');
    await driver.until('it asks', session, questions(1));
    await isParked();
    await bed.stop();
    harness.kill();
    await bed.start();
    await decide(session, 'allow');
    await driver.until('it asks again', session, questions(2));
    await isParked();
    await decide(session, 'allow');
    await over(session);
    await endedOnce(session);
    expect(harness.ran).toEqual([{ command: 'x' }]);
    expect(harness.results).toEqual(['ran {"command":"x"}', 'y\n']);
    expect(await effects(session)).toMatchObject([{ state: 'succeeded' }, { state: 'succeeded' }]);
    expect(attempts()).toEqual([1, 2, 3]);
    expect(harness.told[1]?.continuation).toContain('It is allowed now and has not been run');
    expect(harness.told[2]?.continuation).toContain('It was run. Its result:\ny');
  });

  it('whose harness dies goes on in its next life, with the calls it had made', async () => {
    const steps = [
      { wait: 'text' },
      { call: 'bash', input: { command: 'echo once >> runs; cat runs' } },
      { wait: 'after' },
      { say: 'b' },
    ];
    const session = await open(steps, 'always_ask');
    await harness.reached('text');
    harness.kill();
    harness.gate('text').resolve();
    await driver.until('it asks', session, questions(1));
    harness.kill();
    await decide(session, 'allow');
    await harness.reached('after');
    harness.kill();
    harness.gate('after').resolve();
    await over(session);
    await endedOnce(session);
    expect(harness.results).toEqual(['once\n']);
    expect(await effects(session)).toEqual([{ tool: 'bash', state: 'succeeded', generation: 1 }]);
    expect(attempts()).toEqual([1, 2, 3, 4]);
    expect((await events(session, ['session.error'])).length).toBe(3);
  });

  it('whose harness dies again and again fails', async () => {
    const session = await open([{ wait: 'here' }]);
    for (let life = 1; life <= 4; life += 1) {
      await eventually(
        'a life of it',
        () => harness.told.length === life && harness.running.size === 1,
        BED_PATIENCE_MS,
      );
      harness.kill();
    }
    await over(session);
    await endedOnce(session, 'retries_exhausted');
    const errors = await events(session, ['session.error']);
    expect(errors.map(({ payload }) => (payload as unknown as { error: { code?: string } }).error.code)).toContain(
      'harness_crash',
    );
  });

  it('loses what its harness ran by itself when it died, and a person says what became of it', async () => {
    const steps = [{ own: 'bash', input: { command: 'x', gate: 'inside' } }, { say: 'b' }];
    const session = await open(steps, 'always_allow');
    await harness.reached('inside');
    harness.kill();
    await driver.until('it asks', session, questions(1));
    expect(await effects(session)).toMatchObject([{ state: 'unknown' }]);
    const { rows } = await api.pool.query<{ id: string }>('SELECT id FROM approvals WHERE session_id = $1', [session]);
    await api.post(`/v1/approvals/${rows[0]?.id}/decide`, { decision: 'done', message: 'I saw it' }).expect(200);
    await over(session);
    await endedOnce(session);
    // It asked again and was told; it did not run a second time.
    expect(harness.ran).toHaveLength(1);
    expect(harness.results).toEqual(['denied: This call was run already; its result was:\nI saw it']);
  });
});

describe('a long turn of a harness', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('is cut where its history is long, and the harness does not notice', async () => {
    const read: FakeStep = { call: 'read', input: { file_path: 'missing' } };
    const session = await open([...Array.from({ length: 110 }, () => read), { say: 'b' }]);
    await over(session);
    await endedOnce(session);
    expect(harness.results).toHaveLength(110);
    expect(await effects(session)).toHaveLength(110);
    const handle = api.services.temporal.client.workflow.getHandle(sessionWorkflowId(session));
    const { events: history } = await handle.fetchHistory();
    const run = history?.[0]?.workflowExecutionStartedEventAttributes;
    expect(run?.continuedExecutionRunId).toMatch(/./);
    // It was let go of and found again, and told nothing anew.
    expect(harness.told.length).toBeGreaterThan(1);
  });
});

describe('the end of a turn of a harness', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('comes with an interrupt, in the middle of a call; the next message has its turn', async () => {
    const session = await open([{ call: 'bash', input: { command: 'sleep 1000' } }]);
    await driver.until(
      'it runs',
      session,
      `EXISTS (SELECT 1 FROM effects e WHERE e.session_id = s.id AND e.state = 'started')`,
    );
    await driver.send(session, { type: 'user.interrupt' });
    await over(session);
    expect(harness.running.size).toBe(0);
    await driver.send(session, fakeMessage([{ say: 'next' }]));
    await over(session);
    expect(await driver.turnEnds(session)).toEqual(['interrupted', 'end_turn']);
    expect(await said(session)).toEqual(['next']);
  });

  it('comes with the end of the session, while a person is asked; the harness forgets it', async () => {
    const session = await open([{ own: 'bash', input: { command: 'x' } }], 'always_ask');
    await driver.until('it asks', session, questions(1));
    await api.post(`/v1/sessions/${session}/archive`).expect(200);
    await driver.until('it has ended', session, `s.status = 'terminated'`);
    await eventually('the harness forgot it', () => harness.stored.size === 0, BED_PATIENCE_MS);
    expect(harness.closed.at(-1)).toEqual({ sessionId: session, forget: true });
    expect(harness.ran).toEqual([]);
  });

  it('comes when its time is over', async () => {
    const session = await open([{ wait: 'for ever' }], 'always_allow', { turn_timeout_ms: 3_000 });
    await over(session);
    await endedOnce(session, 'turn_timeout');
    expect(harness.running.size).toBe(0);
  });

  it('is never the usual one when the model refused the harness', async () => {
    const failure = { kind: 'failed', fault: 'auth', retryable: false, httpStatus: 401, message: 'no' } as const;
    const session = await open([{ end: failure }]);
    await over(session);
    await endedOnce(session, 'retries_exhausted');
    const [error] = await events(session, ['session.error']);
    expect(error?.payload).toMatchObject({ error: { code: 'harness_auth', retry_status: { type: 'terminal' } } });
  });

  it('waits until the model is back', async () => {
    const failure = { kind: 'failed', fault: 'overloaded', retryable: true, httpStatus: 529, message: 'busy' } as const;
    const session = await open([{ fail: failure, times: 2 }, { say: 'at last' }]);
    await over(session);
    await endedOnce(session);
    expect(attempts()).toEqual([1, 2, 3]);
    expect(await events(session, ['session.status_rescheduled'])).toHaveLength(1);
  });

  it('comes when the harness asks the model again for too long', async () => {
    const session = await open([{ retry: 6, httpStatus: 400 }, { wait: 'for ever' }]);
    await driver.until(
      'it has failed',
      session,
      `EXISTS (SELECT 1 FROM events e WHERE e.session_id = s.id
      AND e.type = 'session.error' AND e.payload->'error'->>'code' = 'harness_bad_request')`,
    );
    await driver.send(session, { type: 'user.interrupt' });
    await over(session);
    await endedOnce(session, 'interrupted');
  });
});
