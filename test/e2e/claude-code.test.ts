import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installed } from '../support/harnesses.ts';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { scriptMessage, SessionDriver, STACK_TEST_MS, type ScriptStep } from '../support/session-driver.ts';
import { makeHome, startStack, type TestStack } from '../support/stack.ts';

const { binary, reason } = { reason: '', ...(await installed('claude-code')) };
const title = 'a session of Claude Code over the whole stack';

const call = (command: string): NonNullable<ScriptStep['tools']>[number] => ({
  name: 'mcp__longhaul__bash',
  input: { command },
});

describe.skipIf(binary === undefined)(
  binary === undefined ? `${title}: NOT TESTED: ${reason}` : title,
  { timeout: STACK_TEST_MS },
  () => {
    const home = makeHome();
    let stack: TestStack;
    let driver: SessionDriver;
    const start = async (): Promise<void> => {
      stack = await startStack({ home });
      driver = new SessionDriver(stack);
    };
    const stop = async (): Promise<void> => {
      await driver.close();
      await stack.stop();
    };
    beforeAll(start, STACK_TEST_MS);
    afterAll(async () => {
      await stop();
      rmSync(home, { recursive: true, force: true, maxRetries: 10 });
    }, STACK_TEST_MS);

    async function open(steps: ScriptStep[]): Promise<string> {
      const configs = [{ name: 'bash', permission_policy: { type: 'always_ask' } }];
      const agent = await driver.call('POST', '/v1/agents', {
        name: 'claude',
        model: 'scripted',
        harness: 'claude-code',
        tools: [{ type: 'agent_toolset_20260401', configs }],
      });
      expect(agent.body).toMatchObject({ harness: 'claude-code', placement: 'inline' });
      const made = await driver.call('POST', '/v1/sessions', {
        agent: agent.body.id,
        environment_id: await driver.environment(),
        initial_events: [scriptMessage(steps)],
      });
      return String(made.body.id);
    }

    const said = async (session: string): Promise<string> => {
      const rows = await driver.query<{ text: string }>(
        `SELECT payload->'content'->0->>'text' AS text FROM events
         WHERE session_id = $1 AND type = 'agent.message' ORDER BY seq`,
        [session],
      );
      return rows.map(({ text }) => text).join('\n');
    };

    it('waits for a person with nothing running, over the death of the worker and a new start of every process', async () => {
      const session = await open([
        { text: 'Let me look.', tools: [call(`${recorded('gated')}; echo seen`)] },
        { text: 'It printed: {{lastToolResult}}' },
      ]);
      const { id } = await driver.pendingApproval(session);
      await driver.until('no process of it runs', () => processesOf(session) === 0);
      await stack.killAndRecover('worker');
      await stop();
      await start();
      expect(await driver.recorder.traces(session, 'gated')).toEqual({ starts: 0, ends: 0 });
      expect((await driver.decide(id, 'allow')).status).toBe(200);
      await driver.quiet([session]);
      expect(await driver.turnEnds(session)).toEqual(['end_turn']);
      expect(await driver.recorder.traces(session, 'gated')).toEqual({ starts: 1, ends: 1 });
      expect(await said(session)).toContain('It printed: seen');
      // The call that waited was settled without the model: one request before the person spoke, one after.
      const asked = await driver.query<{ asked: number }>(
        'SELECT asked FROM scripted_calls WHERE session_id = $1 ORDER BY step',
        [session],
      );
      expect(asked.map(({ asked: times }) => times)).toEqual([1, 1]);
      await checkInvariants(driver.query, session, { recorder: driver.recorder, temporal: await driver.temporal() });
    });

    it('tells the model what became of both calls of one answer that waited', async () => {
      const session = await open([
        { tools: [call(`${recorded('one')}; echo first`), call(`${recorded('two')}; echo second`)] },
        { text: 'went on' },
        { text: 'heard of all' },
      ]);
      await driver.untilSql(
        'both wait',
        session,
        `(SELECT count(*) FROM approvals p WHERE p.session_id = s.id AND p.state = 'pending') = 2`,
      );
      for (const { id } of await driver.approvals(session)) expect((await driver.decide(id, 'allow')).status).toBe(200);
      await driver.quiet([session]);
      expect(await driver.turnEnds(session)).toEqual(['end_turn']);
      for (const key of ['one', 'two']) {
        expect(await driver.recorder.traces(session, key), key).toEqual({ starts: 1, ends: 1 });
      }
      expect(await said(session)).toContain('heard of all');
      const unplanned = await driver.query('SELECT 1 FROM harness_calls WHERE session_id = $1 AND effect_id IS NULL', [
        session,
      ]);
      expect(unplanned).toEqual([]);
    });

    it('goes on after the worker died in the middle of an answer, and ends once', async () => {
      const session = await open([{ text: 'a long answer in pieces', chunks: 20, chunkMs: 200 }, { text: 'went on' }]);
      const asked = `EXISTS (SELECT 1 FROM scripted_calls c WHERE c.session_id = s.id)`;
      await driver.untilSql('the model was asked', session, asked);
      await stack.killAndRecover('worker');
      await driver.quiet([session]);
      expect(await driver.turnEnds(session)).toEqual(['end_turn']);
      expect(await said(session)).toMatch(/pieces|went on/);
      expect(processesOf(session)).toBe(0);
    });
  },
);

function processesOf(session: string): number {
  return readdirSync('/proc').filter((name) => {
    try {
      return readFileSync(`/proc/${name}/environ`, 'latin1').includes(`LONGHAUL_HARNESS_OF=${session}`);
    } catch {
      return false;
    }
  }).length;
}
