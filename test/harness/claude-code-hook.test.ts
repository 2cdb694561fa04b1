import { createServer } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClaudeCodeDriver } from '../../activities/harness/claude-code/driver.ts';
import { readHarnessConfig } from '../../activities/harness/config.ts';
import { LocalStdio } from '../../activities/harness/host/stdio-local.ts';
import type { HookEndpoint } from '../../activities/harness/port.ts';
import { HarnessWorld, type HarnessUnderTest, type Talk } from '../conformance/harness-bed.ts';
import { allow } from '../conformance/harness.suite.ts';
import { listen, scriptText, stop } from '../gateway/support.ts';
import { installed } from '../support/harnesses.ts';
import { LONG_MS } from '../support/sandbox-commands.ts';

const { binary, reason } = { reason: '', ...(await installed('claude-code')) };
const title = 'the hook of Claude Code';

type Decision = 'allow' | 'deny' | 'defer';

const call = (command: string): object => ({ name: 'mcp__longhaul__bash', input: { command } });
const steps = (...commands: string[]): string =>
  scriptText([{ tools: commands.map(call) }, { text: 'after: {{lastToolResult}}' }, { text: 'heard' }]);

describe.skipIf(binary === undefined)(
  binary === undefined ? `${title}: NOT TESTED: ${reason}` : title,
  { timeout: LONG_MS * 2 },
  () => {
    let world: HarnessWorld;
    let decision: Decision = 'allow';
    const asked: string[] = [];
    const place = new LocalStdio();
    const under: HarnessUnderTest = {
      driver: () => new ClaudeCodeDriver({ place, installDir: readHarnessConfig().installDir }),
      placement: 'inline',
      hands: 'platform',
      shell: { tool: 'mcp__longhaul__bash', input: (command) => ({ command }) },
      kill: ({ sessionId }) => place.end(sessionId, AbortSignal.timeout(60_000)),
      pids: () => Promise.resolve([]),
      close: () => Promise.resolve(),
    };
    const server = createServer((req, res) => {
      const chunks: Buffer[] = [];
      req.on('data', (chunk: Buffer) => chunks.push(chunk));
      req.on('end', () => {
        const posted = JSON.parse(Buffer.concat(chunks).toString('utf8')) as { tool_use_id: string };
        asked.push(`${posted.tool_use_id} ${req.headers.authorization}`);
        const reasoned = { permissionDecision: decision, permissionDecisionReason: 'not by this one' };
        const answer = { hookEventName: 'PreToolUse', ...reasoned };
        res.writeHead(200, { 'content-type': 'application/json' });
        res.end(JSON.stringify({ hookSpecificOutput: answer }));
      });
    });
    let hook: HookEndpoint;
    beforeAll(async () => {
      world = await HarnessWorld.open();
      hook = { url: await listen(server), headers: { authorization: 'Bearer of-the-hook' } };
    }, LONG_MS);
    afterAll(async () => {
      await world.close();
      await stop(server);
    }, LONG_MS);

    const open = async (to: HookEndpoint): Promise<Talk> => {
      const talk = await world.talk(under, { hook: to });
      await talk.open();
      return talk;
    };

    it('that does not answer lets nothing run; models are shown our tools and no others', async () => {
      const talk = await open({ ...hook, url: 'http://127.0.0.1:1/' });
      const { host, ending } = await talk.run(steps('echo x >> ran'), { turn: 1, gate: allow });
      expect(ending.kind).toBe('completed');
      expect(await talk.lines('ran')).toEqual([]);
      expect(host.said()).toContain('after:');
      const tools = talk.bodies().map((body) => (JSON.parse(body) as { tools?: { name: string }[] }).tools ?? []);
      for (const shown of tools) expect(shown.map(({ name }) => name)).toEqual(['mcp__longhaul__bash']);
    });

    it('says no, and the model hears why', async () => {
      const talk = await open(hook);
      decision = 'deny';
      const { host, ending } = await talk.run(steps('echo x >> ran'), { turn: 1, gate: allow });
      expect(ending.kind).toBe('completed');
      expect(await talk.lines('ran')).toEqual([]);
      expect(host.said()).toContain('not by this one');
    });

    it('defers: nothing runs until another process asks again about the same call, and the model is not asked for it', async () => {
      const talk = await open(hook);
      decision = 'defer';
      asked.length = 0;
      const text = steps('echo x >> ran; echo printed');
      expect((await talk.run(text, { turn: 1, gate: allow })).ending).toEqual({ kind: 'parked' });
      await talk.reopen();
      // Not decided yet: it waits on.
      expect((await talk.run(text, { turn: 1, attempt: 2, gate: allow })).ending).toEqual({ kind: 'parked' });
      expect(await talk.lines('ran')).toEqual([]);
      const before = talk.bodies().length;
      decision = 'allow';
      await talk.reopen();
      const { host, ending } = await talk.run(text, { turn: 1, attempt: 3, gate: allow, continuation: 'unused' });
      expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
      expect(host.said()).toContain('after: printed');
      expect(await talk.lines('ran')).toEqual(['x']);
      expect(host.of('platform_result_seen')).toHaveLength(1);
      expect(new Set(asked).size).toBe(1);
      expect(asked[0]).toContain('Bearer of-the-hook');
      expect(talk.bodies()).toHaveLength(before + 1);
      expect(talk.bodies().at(-1)).not.toContain('unused');
    });

    it('defers two calls of one answer: of the one that Claude drops the model is told', async () => {
      const talk = await open(hook);
      decision = 'defer';
      const text = steps('echo one >> ran', 'echo two >> ran');
      expect((await talk.run(text, { turn: 1, gate: allow })).ending).toEqual({ kind: 'parked' });
      decision = 'allow';
      await talk.reopen();
      const continuation = 'What became of it: one was run by others.';
      const { host, ending } = await talk.run(text, { turn: 1, attempt: 2, gate: allow, continuation });
      expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
      expect(host.said()).toContain('heard');
      expect(await talk.lines('ran')).toEqual(['two']);
      expect(talk.bodies().at(-1)).toContain(continuation);
      expect(talk.bodies().at(-1)).toMatch(/have not seen their results.{0,200}echo one >> ran/);
    });
  },
);
