import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AcpDriver } from '../../activities/harness/acp/driver.ts';
import { LocalStdio } from '../../activities/harness/host/stdio-local.ts';
import { HarnessWorld, type HarnessUnderTest, type Talk } from '../conformance/harness-bed.ts';
import { allow, harnessConformance, mark } from '../conformance/harness.suite.ts';
import { scriptText } from '../gateway/support.ts';
import { doubleRecipe } from '../support/acp-double.ts';
import { LONG_MS } from '../support/sandbox-commands.ts';

function shell(command: string): object {
  return { tools: [{ name: 'bash', input: { command } }] };
}

function pidsOf(sessionId: string): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return readFileSync(`/proc/${name}/environ`, 'utf8').includes(`LONGHAUL_HARNESS_OF=${sessionId}`)
        ? [Number(name)]
        : [];
    } catch {
      return [];
    }
  });
}

function beside(ways = ''): HarnessUnderTest {
  const place = new LocalStdio();
  const recipes = new Map([['double', doubleRecipe(ways)]]);
  return {
    driver: () =>
      new AcpDriver({
        recipes,
        place: () => Promise.resolve(place),
        program: () => Promise.resolve(undefined),
        placements: ['inline'],
        keepMs: 600_000,
      }),
    placement: 'inline',
    hands: 'own',
    agent: 'double',
    shell: { tool: 'bash', input: (command) => ({ command }) },
    kill: (spec) => place.end(spec.sessionId, AbortSignal.timeout(60_000)),
    pids: (spec) => Promise.resolve(pidsOf(spec.sessionId)),
    close: () => Promise.resolve(),
  };
}

harnessConformance('acp, beside the worker', () => Promise.resolve(beside()));

describe('agents that are different', { timeout: LONG_MS }, () => {
  let world: HarnessWorld;
  beforeAll(async () => {
    world = await HarnessWorld.open();
  }, LONG_MS);
  afterAll(() => world.close(), LONG_MS);

  const talkWith = async (ways: string): Promise<Talk> => {
    const talk = await world.talk(beside(ways));
    await talk.open();
    return talk;
  };

  it('takes an end that hides an error for the failure it is, and an answer about errors for an answer', async () => {
    const talk = await talkWith('hides-errors');
    const failed = await talk.run(scriptText([{ error: { status: 400, message: 'no such thing' } }]), { turn: 1 });
    expect(failed.ending).toMatchObject({ kind: 'failed', fault: 'bad_request', httpStatus: 400, retryable: false });
    const limited = await talk.run(scriptText([{ error: { status: 429 } }]), { turn: 2 });
    expect(limited.ending).toMatchObject({ kind: 'failed', fault: 'rate_limit', httpStatus: 429 });
    const fine = await talk.run(scriptText([{ text: 'Error 500 means that the server failed.' }]), { turn: 3 });
    expect(fine.ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
  });

  it('tells the model why a call was denied when the agent stops for it', async () => {
    const talk = await talkWith('stops-when-refused');
    const why = mark();
    const { host, ending } = await talk.run(scriptText([shell('echo no >> ran'), { text: 'I see.' }]), {
      turn: 1,
      gate: () => Promise.resolve({ decision: 'deny', message: `not here ${why}` }),
    });
    expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
    expect(talk.bodies().at(-1)).toContain(why);
    expect(host.said()).toBe('I see.');
    expect(await talk.lines('ran')).toEqual([]);
  });

  it('does not run a call whose input a person changed, and asks the model for the changed one', async () => {
    const talk = await talkWith('stops-when-refused');
    const input = { command: 'echo changed >> ran' };
    const { ending } = await talk.run(scriptText([shell('echo given >> ran'), { text: 'Well.' }]), {
      turn: 1,
      gate: () => Promise.resolve({ decision: 'allow', input }),
    });
    expect(ending.kind).toBe('completed');
    expect(await talk.lines('ran')).toEqual([]);
    expect(talk.bodies().at(-1)).toContain('echo changed >> ran');
  });

  it('allows once, wherever that stands in the list, and answers what it does not know with -32601', async () => {
    const talk = await talkWith('always-first asks-unknown');
    const { ending } = await talk.run(scriptText([shell('echo x >> ran'), { text: 'ok' }]), { turn: 1, gate: allow });
    expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
    expect(await talk.lines('ran')).toEqual(['x']);
  });

  it('leaves calls of our own tools to our tools: not asked about twice, not told as calls of the agent', async () => {
    const talk = await talkWith('');
    const word = mark();
    const call = { name: 'mcp_longhaul_bash', input: { command: `echo ${word} | tee -a ran` } };
    const { host, ending } = await talk.run(scriptText([{ tools: [call] }, { text: 'It said {{lastToolResult}}' }]), {
      turn: 1,
      gate: allow,
    });
    expect(ending.kind).toBe('completed');
    expect(host.said()).toContain(word);
    expect(await talk.lines('ran')).toEqual([word]);
    expect([host.asked, host.of('tool_call'), host.of('tool_result')]).toEqual([[], [], []]);
    expect(host.of('platform_result_seen')).toMatchObject([{ tool: 'bash', input: call.input }]);
  });

  it('refuses an agent that nobody knows, and names those it knows', async () => {
    const under = { ...beside(), agent: 'nobody' };
    const talk = await world.talk(under);
    await expect(talk.open()).rejects.toMatchObject({ code: 'harness_invalid', field: 'agent' });
  });
});
