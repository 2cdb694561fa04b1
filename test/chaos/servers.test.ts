import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { bash, scriptMessage, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

describe('a server below is away', { timeout: STACK_TEST_MS }, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  beforeAll(async () => {
    stack = await startStack();
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver.close();
    await stack.stop();
  });

  for (const role of ['temporal', 'postgres'] as const) {
    it(`${role} is killed: a model call, a command, a question and new inputs all come to their end`, async () => {
      const name = (what: string): string => `${role}-${what}`;
      const idle = await driver.open([{ text: 'ready' }]);
      await driver.quiet([idle]);
      const streaming = await driver.open([{ text: 'pieces', chunks: 30, chunkMs: 100 }, { text: 'unused' }]);
      const running = await driver.open([{ tools: [bash(recorded(name('running'), 3))] }, { text: 'ran' }]);
      const asking = await driver.open([{ tools: [bash(recorded(name('asking')))] }], { policy: 'always_ask' });
      const approval = await driver.pendingApproval(asking);
      await driver.ran(running, name('running'));
      await driver.untilSql(
        'the call runs',
        streaming,
        `EXISTS (SELECT 1 FROM model_calls c WHERE c.session_id = s.id)`,
      );

      driver.kill(role);
      const steps = [{ tools: [bash(recorded(name('late')))] }, { text: 'late' }];
      const [sent, decided] = await Promise.all([
        driver.send(idle, scriptMessage(steps)),
        driver.decide(approval.id, 'allow'),
      ]);
      expect([sent.status, decided.status]).toEqual([200, 200]);

      const all = [idle, streaming, running, asking];
      await driver.quiet(all);
      await stack.waitReady();
      expect(await driver.turnEnds(idle)).toEqual(['end_turn', 'end_turn']);
      for (const id of [streaming, running, asking]) expect(await driver.turnEnds(id)).toEqual(['end_turn']);
      expect(await driver.recorder.traces(running, name('running'))).toEqual({ starts: 1, ends: 1 });
      expect(await driver.recorder.traces(asking, name('asking'))).toEqual({ starts: 1, ends: 1 });
      expect(await driver.recorder.traces(idle, name('late'))).toEqual({ starts: 1, ends: 1 });
      const { query, recorder } = driver;
      const temporal = await driver.temporal();
      for (const id of all) await checkInvariants(query, id, { recorder, temporal });
    });
  }

  it('the provider: the session says that it waits and goes on by itself', async () => {
    const error = { status: 529, type: 'overloaded_error', message: 'Overloaded', times: 4 };
    const session = await driver.open([{ tools: [bash(recorded('before'))] }, { text: 'patient', error }]);
    await driver.untilSql('it waits for the model', session, `s.status = 'rescheduling'`);
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['end_turn']);
    const types = await driver.query<{ type: string }>(
      `SELECT type FROM events WHERE session_id = $1 AND (type LIKE 'session.%') ORDER BY seq`,
      [session],
    );
    expect(types.map(({ type }) => type)).toEqual([
      'session.status_running',
      'session.status_rescheduled',
      'session.error',
      'session.status_running',
      'session.status_idle',
    ]);
    const calls = await driver.query<{ asked: number; billed: number }>(
      'SELECT asked, billed FROM scripted_calls WHERE session_id = $1 AND step = 1',
      [session],
    );
    expect(calls).toEqual([{ asked: 5, billed: 1 }]);
    await checkInvariants(driver.query, session, { recorder: driver.recorder, temporal: await driver.temporal() });
  });
});
