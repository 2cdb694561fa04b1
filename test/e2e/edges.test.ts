import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sessionWorkflowId } from '../../workflows/ids.ts';
import { checkInvariants } from '../support/invariants.ts';
import { bash, scriptMessage, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const edit = (file: string): { name: string; input: Record<string, unknown> } => ({
  name: 'edit',
  input: { file_path: file, old_string: 'caf', new_string: 'tea' },
});

describe('at the edges of a session', { timeout: STACK_TEST_MS }, () => {
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

  const results = async (session: string): Promise<string[]> => {
    const rows = await driver.query<{ text: string }>(
      `SELECT payload->'content'->0->>'text' AS text FROM events
       WHERE session_id = $1 AND type = 'agent.tool_result' ORDER BY seq`,
      [session],
    );
    return rows.map(({ text }) => text);
  };
  const done = async (session: string, ends: string[]): Promise<void> => {
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(ends);
    await checkInvariants(driver.query, session, { recorder: driver.recorder, temporal: await driver.temporal() });
  };

  it('an interrupt right behind a message stops that message, not the next', async () => {
    for (let round = 0; round < 5; round += 1) {
      const session = await driver.open([{ text: 'ran anyway', delayMs: 200 }]);
      await driver.send(session, { type: 'user.interrupt' });
      await driver.send(session, scriptMessage([{ text: 'the next one' }]));
      await driver.quiet([session]);
      const said = await driver.query<{ text: string }>(
        `SELECT payload->'content'->0->>'text' AS text FROM events WHERE session_id = $1 AND type = 'agent.message'`,
        [session],
      );
      expect(said.map(({ text }) => text)).toEqual(['the next one']);
    }
  });

  it('text that Postgres cannot hold does not block the session', async () => {
    const odd = 'a\u0000b\ud800c';
    const session = await driver.open([{ text: odd, tools: [bash(`echo '${odd}'`)] }, { text: 'went on' }]);
    await done(session, ['end_turn']);
  });

  it('time limits end a turn in the middle of a command, and a session in the middle of a turn', async () => {
    const turn = await driver.open([{ tools: [bash('sleep 50')] }, { text: 'never' }], {
      limits: { turn_timeout_ms: 1_500 },
    });
    await done(turn, ['turn_timeout']);
    expect(await results(turn)).toEqual([expect.stringContaining('Stopped')]);
    const age = await driver.open([{ text: 'never', delayMs: 50_000 }], { limits: { wall_clock_ms: 1_500 } });
    await driver.untilSql('terminated', age, `s.status = 'terminated'`);
    await driver.quiet([age]);
    expect(await driver.turnEnds(age)).toEqual(['interrupted']);
  });

  it('an edit refuses bytes it would not give back', async () => {
    const make =
      "printf 'caf\\351' > latin; printf '\\357\\273\\277caf' > bom; { printf caf; head -c 9000000 /dev/zero; } > large";
    const session = await driver.open([
      { tools: [bash(make)] },
      { tools: [edit('latin'), edit('bom'), edit('large'), bash('od -An -tx1 latin bom; stat -c %s large')] },
      { text: 'ok' },
    ]);
    await done(session, ['end_turn']);
    const [, latin, bom, large, after] = await results(session);
    expect([latin, bom, large]).toEqual([
      expect.stringContaining('not UTF-8'),
      expect.stringContaining('edited'),
      expect.stringContaining('too large'),
    ]);
    expect(after).toContain('63 61 66 e9 ef bb bf 74 65 61');
    expect(after).toContain('9000003');
  });

  it('a session whose Temporal history is gone goes on with its next message', async () => {
    const session = await driver.open([{ text: 'one' }]);
    await done(session, ['end_turn']);
    const temporal = await driver.temporal();
    const workflowExecution = { workflowId: sessionWorkflowId(session) };
    await temporal.workflowService.deleteWorkflowExecution({ namespace: 'default', workflowExecution });
    await driver.until('the history is gone', async () => {
      const described = temporal.workflow.getHandle(sessionWorkflowId(session)).describe();
      return described.then(
        () => false,
        () => true,
      );
    });
    await driver.send(session, scriptMessage([{ text: 'two' }]));
    await driver.until('two turns', async () => (await driver.turnEnds(session)).length === 2);
    await done(session, ['end_turn', 'end_turn']);
  });

  it('a confirmation behind an interrupt gets its end', async () => {
    const session = await driver.open([{ tools: [bash('echo gated')] }, { text: 'x' }], { policy: 'always_ask' });
    const { effectId } = await driver.pendingApproval(session);
    await driver.call('POST', `/v1/sessions/${session}/events`, {
      events: [{ type: 'user.interrupt' }, { type: 'user.tool_confirmation', tool_use_id: effectId, result: 'allow' }],
    });
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['interrupted']);
  });
});
