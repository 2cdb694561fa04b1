import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { HarnessCapabilities, HarnessSpec } from '../../activities/harness/port.ts';
import { scriptText } from '../gateway/support.ts';
import { LONG_MS, until } from '../support/sandbox-commands.ts';
import { CANARY, HarnessWorld, type HarnessUnderTest, type Talk } from './harness-bed.ts';
import { faultParts } from './harness-faults.ts';
import type { RecordingHost } from './harness-host.ts';
import type { Gate } from './harness-tools.ts';

/** What the parts of the suite share. */
export interface HarnessBench {
  under(): HarnessUnderTest;
  can(): HarnessCapabilities;
  world(): HarnessWorld;
  /** A session that is open; it is closed when the suite ends. */
  talk(change?: Partial<HarnessSpec>): Promise<Talk>;
  /** A step in which the model calls the shell. */
  shellStep(...commands: string[]): object;
}

/** A word that stands nowhere else. */
export function mark(): string {
  return `mark${randomBytes(6).toString('hex')}`;
}

export const allow: Gate = (call) => Promise.resolve({ decision: 'allow', input: call.input });

/** How often a word was said to the model in its longest history. */
function timesSaid(talk: Talk, word: string): number {
  return Math.max(0, ...talk.bodies().map((body) => body.split(word).length - 1));
}

/**
 * Every driver of the port passes these; what a harness cannot do is left out by its `capabilities()`. `place`: of a driver that
 * passes them all elsewhere, what another place of its processes changes.
 */
export function harnessConformance(
  name: string,
  make: () => Promise<HarnessUnderTest>,
  scope: 'all' | 'place' = 'all',
): void {
  describe(`harness port: ${name}`, { timeout: LONG_MS * 2 }, () => {
    let under: HarnessUnderTest;
    let world: HarnessWorld;
    let can: HarnessCapabilities;
    const bench: HarnessBench = {
      under: () => under,
      can: () => can,
      world: () => world,
      talk: async (change = {}) => {
        const talk = await world.talk(under, change);
        await talk.open();
        return talk;
      },
      shellStep: (...commands) => ({
        tools: commands.map((command) => ({ name: under.shell.tool, input: under.shell.input(command) })),
      }),
    };

    beforeAll(async () => {
      under = await make();
      world = await HarnessWorld.open();
      can = await under.driver().capabilities(under.agent);
    }, LONG_MS * 2);

    afterAll(async () => {
      await world.close();
      await under.close();
    }, LONG_MS);

    describe('conversation', () => conversationParts(bench));
    describe('tools', () => toolParts(bench));
    describe('cancel and park', () => stopParts(bench));
    describe('death', () => deathParts(bench));
    if (scope === 'all') describe('faults of the model', () => faultParts(bench));
    describe('secrets and ends', () => endParts(bench));
  });
}

function conversationParts(bench: HarnessBench): void {
  it('opens one session however often it is asked', async () => {
    const talk = await bench.talk();
    const first = talk.handle.harnessSessionId;
    expect((await talk.open()).harnessSessionId).toBe(first);
    expect((await talk.reopen()).harnessSessionId).toBe(first);
  });

  it('runs three turns that keep context, each with its model and one message; deltas make up the text', async () => {
    const talk = await bench.talk({ systemPrompt: 'You are the keeper of the lighthouse.' });
    const words = [mark(), mark(), mark()];
    for (const [index, word] of words.entries()) {
      const model = bench.can().perMessageModel ? (bench.world().models[index % 2] ?? 'scripted') : 'scripted';
      const text = scriptText([{ text: `I heard you, ${index}: all is well at sea.`, chunks: 6 }], word);
      const { host, ending } = await talk.run(text, { turn: index + 1, model });
      expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
      const [message, ...more] = host.of('message');
      expect(more).toEqual([]);
      expect(message?.text).toBe(`I heard you, ${index}: all is well at sea.`);
      const deltas = host.of('text_delta').map((event) => event.text);
      expect(deltas.join('')).toBe(message?.text);
      expect(host.of('usage').length > 0).toBe(bench.can().usageBasis !== 'none');
      const body = talk.bodies().findLast((each) => each.includes(word)) ?? '';
      expect(askedModel(talk, word)).toContain(model);
      for (const earlier of words.slice(0, index + 1)) expect(body).toContain(earlier);
      if (bench.can().systemPrompt !== 'none') expect(body).toContain('keeper of the lighthouse');
    }
    for (const word of words) expect(timesSaid(talk, word)).toBe(1);
  });
}

/** Models named in requests that hold the word: in the body, or in the path where the wire has it there. */
function askedModel(talk: Talk, word: string): string {
  return talk
    .calls()
    .filter((call) => call.body.includes(word))
    .map((call) => (JSON.parse(call.body) as { model?: string }).model ?? call.path)
    .join(' ');
}

function toolParts(bench: HarnessBench): void {
  it('asks before a command runs, runs it once when it is allowed and shows the model what it printed', async () => {
    const talk = await bench.talk();
    const word = mark();
    const calls: string[] = [];
    const steps = [bench.shellStep(`echo ${word} | tee -a ran`), { text: 'It printed {{lastToolResult}}' }];
    const { host, ending } = await talk.run(scriptText(steps), {
      turn: 1,
      gate: async (call) => {
        expect(await talk.lines('ran')).toEqual([]);
        calls.push(call.callId);
        return allow(call);
      },
    });
    expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
    expect(host.said()).toContain(`It printed`);
    expect(host.said()).toContain(word);
    expect(await talk.lines('ran')).toEqual([word]);
    expect(calls).toHaveLength(1);
    expectToolEvents(bench, host, 1);
  });

  it('does not run what is denied, and the model hears why', async () => {
    const talk = await bench.talk();
    const why = mark();
    const steps = [bench.shellStep('echo no >> ran'), { text: 'I was told: {{lastToolResult}}' }];
    const { host, ending } = await talk.run(scriptText(steps), {
      turn: 1,
      gate: () => Promise.resolve({ decision: 'deny', message: `not here ${why}` }),
    });
    expect(ending.kind).toBe('completed');
    expect(await talk.lines('ran')).toEqual([]);
    if (bench.can().deniesWithReason !== false) {
      expect(talk.bodies().some((body) => body.includes(why))).toBe(true);
      expect(host.said()).toContain('I was told:');
    }
  });

  it('runs two calls of one answer, and none vanishes', async () => {
    const talk = await bench.talk();
    const words = [mark(), mark()];
    const steps = [bench.shellStep(...words.map((word) => `echo ${word} | tee -a ran`)), { text: 'both are done' }];
    const { host, ending } = await talk.run(scriptText(steps), { turn: 1, gate: allow });
    expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
    expect(host.said()).toContain('both are done');
    expect((await talk.lines('ran')).toSorted()).toEqual(words.toSorted());
    expectToolEvents(bench, host, 2);
  });
}

/** Calls of the harness's own are told with their ends; those of ours are not, only that their result arrived. */
function expectToolEvents(bench: HarnessBench, host: RecordingHost, count: number): void {
  const [calls, results, seen] = [host.of('tool_call'), host.of('tool_result'), host.of('platform_result_seen')];
  if (bench.under().hands === 'own') {
    expect(calls).toHaveLength(count);
    expect(results.map((event) => event.id).toSorted()).toEqual(calls.map((event) => event.id).toSorted());
    expect(host.asked.map((call) => call.callId).toSorted()).toEqual(calls.map((event) => event.id).toSorted());
    expect(results.every((event) => !event.isError)).toBe(true);
  } else {
    expect(calls).toEqual([]);
    expect(seen).toHaveLength(count);
  }
}

function stopParts(bench: HarnessBench): void {
  it('cancels in the middle of a text, and the session goes on', async () => {
    const talk = await bench.talk();
    const text = scriptText([{ text: 'a long story '.repeat(100), chunks: 600, chunkMs: 200 }]);
    const running = talk.start(text, { turn: 1 });
    await running.host.until((host) => host.of('text_delta').length > 0);
    running.cancel();
    expect(await running.ending).toEqual({ kind: 'cancelled' });
    const { host, ending } = await talk.run(scriptText([{ text: 'still here' }]), { turn: 2 });
    expect(ending.kind).toBe('completed');
    expect(host.said()).toContain('still here');
  });

  it('cancels in the middle of a command, which ends', async () => {
    const talk = await bench.talk();
    const isOwn = bench.under().hands === 'own';
    let isAsked = false;
    const steps = [bench.shellStep('echo $$ > pid; exec sleep 600'), { text: 'never' }];
    const running = talk.start(scriptText(steps), {
      turn: 1,
      gate: (call) => {
        isAsked = true;
        return isOwn ? allow(call) : new Promise<never>(() => undefined);
      },
    });
    await until('the command runs', async () => (isOwn ? (await talk.lines('pid')).length > 0 : isAsked), 50);
    running.cancel();
    expect(await running.ending).toEqual({ kind: 'cancelled' });
    if (isOwn && bench.under().placement === 'inline') {
      const [pid = ''] = await talk.lines('pid');
      await until('the command is gone', () => Promise.resolve(!isSleep(pid)), 50);
    }
  });

  it('parks while a call waits, and goes on with what was decided', async () => {
    const talk = await bench.talk();
    const word = mark();
    const steps = [bench.shellStep(`echo ${word} | tee -a ran`), { text: 'first end' }, { text: 'second end' }];
    const parked = await talk.run(scriptText(steps, word), {
      turn: 1,
      gate: () => Promise.resolve({ decision: 'park' }),
    });
    expect(parked.ending).toEqual({ kind: 'parked' });
    expect(await talk.lines('ran')).toEqual([]);
    await bench.under().kill(talk.spec);
    await talk.reopen();
    const { host, ending } = await talk.run(scriptText(steps, word), {
      turn: 1,
      attempt: 2,
      gate: allow,
      continuation: 'The command was allowed: run it again if it is still needed.',
    });
    expect(ending.kind).toBe('completed');
    expect(host.said()).toMatch(/end/);
    expect((await talk.lines('ran')).length).toBeLessThanOrEqual(1);
    expect(promptsSaid(talk, word)).toBe(1);
  });
}

function isSleep(pid: string): boolean {
  const file = `/proc/${pid}/cmdline`;
  return existsSync(file) && readFileSync(file, 'utf8').includes('sleep');
}

/** How often a prompt that begins with the word is in the longest history. */
function promptsSaid(talk: Talk, word: string): number {
  return timesSaid(talk, `${word}\\n\\n\`\`\`script`);
}

function deathParts(bench: HarnessBench): void {
  it('goes on in another process after a SIGKILL in the middle of a text: the prompt reached the model once', async () => {
    const talk = await bench.talk();
    const word = mark();
    const text = scriptText([{ text: 'one and two and three', chunks: 8, chunkMs: 250 }, { text: 'went on' }], word);
    const running = talk.start(text, { turn: 1 });
    await running.host.until((host) => host.of('text_delta').length > 0);
    await bench.under().kill(talk.spec);
    expect(await running.ending).toMatchObject({ kind: 'failed', fault: 'harness_crash', retryable: true });
    await talk.reopen();
    const { host, ending } = await talk.run(text, { turn: 1, resumed: true });
    expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
    expect(host.said()).toMatch(/three|went on|done/);
    expect(promptsSaid(talk, word)).toBe(1);
  });

  it('goes on after a SIGKILL while a command waits for its answer: it runs once', async () => {
    const talk = await bench.talk();
    const word = mark();
    let isAsked = false;
    const text = scriptText([bench.shellStep(`echo ${word} | tee -a ran`), { text: 'that was it' }], word);
    const running = talk.start(text, {
      turn: 1,
      gate: () => {
        isAsked = true;
        return new Promise<never>(() => undefined);
      },
    });
    await until('it asks', () => Promise.resolve(isAsked), 50);
    await bench.under().kill(talk.spec);
    expect(await running.ending).toMatchObject({ kind: 'failed', fault: 'harness_crash', retryable: true });
    expect(await talk.lines('ran')).toEqual([]);
    await talk.reopen();
    const { ending } = await talk.run(text, { turn: 1, resumed: true, gate: allow });
    expect(ending.kind).toBe('completed');
    expect((await talk.lines('ran')).length).toBeLessThanOrEqual(1);
    expect(promptsSaid(talk, word)).toBe(1);
  });

  it('is found again by a new worker while its turn runs', async ({ skip }) => {
    skip(!bench.can().hotReattach, 'the harness ends with its worker');
    const talk = await bench.talk();
    const word = mark();
    const running = talk.start(scriptText([{ text: 'slow and whole', chunks: 7, chunkMs: 500 }], word), { turn: 1 });
    await running.host.until((host) => host.of('text_delta').length > 0);
    running.host.detach();
    expect(await running.ending).toEqual({ kind: 'detached' });
    const asked = await talk.asked();
    expect((await talk.reopen()).isAttachedToRunning).toBe(true);
    const { host, ending } = await talk.run(scriptText([{ text: 'slow and whole', chunks: 7, chunkMs: 500 }], word), {
      turn: 1,
      resumed: true,
    });
    expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
    expect(host.said()).toBe('slow and whole');
    expect(await talk.asked()).toBe(asked);
  });

  it('takes its state to another machine', async ({ skip }) => {
    const talk = await bench.talk();
    const word = mark();
    await talk.run(scriptText([{ text: 'remember' }], word), { turn: 1 });
    const state = await talk.driver.exportState(talk.handle, AbortSignal.timeout(60_000));
    skip(state === null, 'the harness has no state to take along');
    if (state === null || talk.token === null) return;
    const other = await bench.world().talk(bench.under());
    await other.driver.importState(other.spec, talk.token, state, AbortSignal.timeout(60_000));
    other.token = talk.token;
    await other.open();
    const { ending } = await other.run(scriptText([{ text: 'I do' }]), { turn: 2 });
    expect(ending.kind).toBe('completed');
    expect(other.bodies().at(-1)).toContain(word);
  });
}

function endParts(bench: HarnessBench): void {
  it('shows neither a key of a provider nor that of another session', async () => {
    const [one, other] = [await bench.talk(), await bench.talk()];
    for (const talk of [one, other]) await talk.run(scriptText([{ text: 'hello' }]), { turn: 1 });
    const shown = await everythingOf(bench, one);
    for (const secret of [CANARY, other.key, other.mcpToken]) expect(shown).not.toContain(secret);
    // The resume token goes into the database, where no key may be.
    expect(JSON.stringify(one.token)).not.toContain(one.key);
  });

  it('forgets what it is told to forget, as often as it is told', async () => {
    const talk = await bench.talk();
    const first = talk.handle.harnessSessionId;
    await talk.run(scriptText([{ text: 'gone soon' }]), { turn: 1 });
    await talk.close();
    await talk.close();
    for (const pid of await bench.under().pids(talk.spec)) expect(bench.can().multiSession, String(pid)).toBe(true);
    talk.token = null;
    expect((await talk.reopen()).harnessSessionId).toEqual(expect.any(String));
    const word = mark();
    await talk.run(scriptText([{ text: 'anew' }], word), { turn: 2 });
    expect(talk.bodies().findLast((body) => body.includes(word))).not.toContain('gone soon');
    expect(first).not.toBe('');
  });
}

/** Environments of its processes, files of its folders and its resume token. */
async function everythingOf(bench: HarnessBench, talk: Talk): Promise<string> {
  const environments = (await bench.under().pids(talk.spec)).map((pid) =>
    readFileSync(`/proc/${pid}/environ`, 'latin1'),
  );
  const files: string[] = [];
  for (const folder of [talk.spec.cwd, talk.spec.stateDir]) {
    if (!existsSync(folder)) continue;
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) files.push(await readFile(path.join(entry.parentPath, entry.name), 'latin1'));
    }
  }
  return [...environments, ...files, JSON.stringify(talk.token)].join('\n');
}
