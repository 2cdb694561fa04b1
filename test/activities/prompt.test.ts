import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { firstKept, LEFT_OUT } from '../../activities/model/cut.ts';
import type { PromptMessage } from '../../activities/model/prompt.ts';
import { buildPrompt } from '../../activities/model/prompt.ts';
import type { SandboxRef } from '../../activities/sandbox/port.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { OutlineEntry } from '../../db/queries/conversation.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import { testApi, type TestApi } from '../api/support.ts';
import { ASKING, BED_PATIENCE_MS, BedDriver, toolset, TURNS_OVER } from '../support/bed-driver.ts';
import { bash, scriptMessage, type ScriptStep } from '../support/session-driver.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

const entry = fc.record({
  bytes: fc.nat(20_000),
  longBytes: fc.nat(120_000),
  longResults: fc.integer({ min: 1, max: 20 }),
});
const outlineOf = (entries: { bytes: number; longBytes: number; longResults: number }[]): OutlineEntry[] =>
  entries.map((part, step) => ({ turn: 1, step, mediaBytes: 0, ...part }));

describe('the cut of a long conversation', () => {
  it('never goes back, leaves the newest step alone, and is made seldom', () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 60 }), (entries) => {
        const outline = outlineOf(entries);
        const cuts = outline.map((_, index) => firstKept(outline.slice(0, index + 1)).step);
        const grown = cuts.filter((cut, index) => index > 0 && cut !== cuts[index - 1]).length;
        const total = outline.reduce((sum, { bytes, longBytes }) => sum + bytes + longBytes, 0);
        cuts.forEach((cut, index) => {
          expect(cut).toBeGreaterThanOrEqual(cuts[index - 1] ?? 0);
          expect(cut).toBeLessThanOrEqual(index);
        });
        // Between two cuts a conversation grows by what one of them frees.
        expect(grown).toBeLessThanOrEqual(total / (LIMITS.promptCutBytes - LIMITS.promptKeptBytes));
      }),
    );
  });

  it('leaves out nothing of a short conversation, and of a long one down to the limit', () => {
    const step = { bytes: 100, longBytes: 29_900, longResults: 1 };
    expect(firstKept(outlineOf(Array.from({ length: 12 }, () => step)))).toMatchObject({ step: 0 });
    expect(firstKept(outlineOf(Array.from({ length: 13 }, () => step)))).toMatchObject({ step: 8 });
    expect(firstKept(outlineOf(Array.from({ length: 19 }, () => step)))).toMatchObject({ step: 8 });
  });

  it('refuses what stays too large, and too many steps, with what to do', () => {
    const large = outlineOf([{ bytes: LIMITS.promptBytes + 1, longBytes: 0, longResults: 0 }]);
    expect(() => firstKept(large)).toThrow(/more than 4194304\. Start a new session/);
    const many = outlineOf(
      Array.from({ length: LIMITS.promptSteps + 1 }, () => ({ bytes: 1, longBytes: 0, longResults: 0 })),
    );
    expect(() => firstKept(many)).toThrow(expect.objectContaining({ code: 'conversation_too_long' }));
  });
});

/** Texts of the user's side: messages and results, in order. */
const textsOf = (messages: PromptMessage[]): string[] =>
  messages
    .flatMap((message) => (message.role === 'user' ? message.content : []))
    .flatMap((block) => (block.type === 'tool_result' ? block.content : [block]))
    .flatMap((block) => (block.type === 'text' ? [block.text] : []));

const image = (): object => ({
  type: 'image',
  source: { type: 'base64', media_type: 'image/png', data: 'A'.repeat(1_000_000) },
});
/** A message whose image is a quarter of what a prompt may hold. */
const picture = (): object => ({
  type: 'user.message',
  content: [image(), { type: 'text', text: scriptMessage([{ text: 'seen' }]).content }],
});

describe('the prompt', { timeout: BED_PATIENCE_MS * 2 }, () => {
  let api: TestApi;
  let bed: WorkerBed;
  let driver: BedDriver;
  beforeAll(async () => {
    api = await testApi();
    bed = await workerBed(api);
    driver = new BedDriver(api);
    await bed.start();
  });
  afterAll(async () => {
    await bed.close();
    await api.close();
  });

  const promptOf = async (session: string): Promise<PromptMessage[]> => {
    const { agent } = await loadSessionForTurn(api.pool, session);
    return (await buildPrompt(api.pool, session, agent, '')).messages;
  };
  const over = (session: string): Promise<void> => driver.until('the turn is over', session, TURNS_OVER);

  it('shows a long message in part and says where the whole is, in this turn and in every later one', async () => {
    const long = `begin ${'ä'.repeat(150_000)} end`;
    const whole = `${long}\n${scriptMessage([{ tools: [bash('cat /workspace/.longhaul/inputs/*.txt | wc -c')] }, { text: 'ok' }]).content}`;
    const session = await driver.open({ type: 'user.message', content: whole }, [toolset('always_allow')]);
    await over(session);
    expect(await driver.turnEnds(session)).toEqual(['end_turn']);
    const [message = '', size] = textsOf(await promptOf(session));
    expect(Buffer.byteLength(message)).toBeLessThan(LIMITS.messageShownBytes);
    expect(message).toMatch(/^begin ä+/);
    expect(message).toMatch(
      /\[… \d+ bytes left out; all \d+ bytes are in \/workspace\/\.longhaul\/inputs\/sevt_\w+\.txt …\]/,
    );
    expect(Number(size)).toBe(Buffer.byteLength(whole));
    await driver.send(session, scriptMessage([{ text: 'again' }]));
    await over(session);
    expect(textsOf(await promptOf(session))[0]).toBe(message);
    // The log keeps what was sent.
    const { text } = await driver.one<{ text: string }>(
      `SELECT payload->'content'->0->>'text' AS text FROM events WHERE session_id = $1 AND seq = 1`,
      session,
    );
    expect(text).toBe(whole);
  });

  it('wakes a sandbox that was put to sleep behind its back to keep a long message', async () => {
    const session = await driver.open([{ tools: [bash('true')] }, { text: 'ok' }], [toolset('always_allow')]);
    await over(session);
    const { ref } = await driver.one<{ ref: SandboxRef }>('SELECT ref FROM sandboxes WHERE session_id = $1', session);
    await bed.deps.sandboxProvider(ref.provider).pause(ref, AbortSignal.timeout(60_000));
    const long = 'x'.repeat(LIMITS.messageShownBytes);
    await driver.send(session, {
      type: 'user.message',
      content: `${long}\n${scriptMessage([{ text: 'ok' }]).content}`,
    });
    await over(session);
    expect(await driver.turnEnds(session)).toEqual(['end_turn', 'end_turn']);
    expect(textsOf(await promptOf(session)).at(-1)).toMatch(/bytes are in \/workspace\/\.longhaul\/inputs\//);
  });

  it('shows a long answer to a custom tool in part, also without a sandbox', async () => {
    const lookup = { type: 'custom', name: 'lookup', description: 'looks up', input_schema: { type: 'object' } };
    const steps: ScriptStep[] = [{ tools: [{ name: 'lookup', input: {} }] }, { text: 'went on' }];
    const answer = `first ${'x'.repeat(500_000)} last`;
    const shown = async (tools: object[]): Promise<string> => {
      const session = await driver.open(steps, tools);
      await driver.until('it asks', session, ASKING);
      const { id } = await driver.one<{ id: string }>('SELECT id FROM effects WHERE session_id = $1', session);
      const content = [{ type: 'text', text: answer }];
      await driver.send(session, { type: 'user.custom_tool_result', custom_tool_use_id: id, content });
      await over(session);
      expect(await driver.turnEnds(session)).toEqual(['end_turn']);
      const result = textsOf(await promptOf(session)).at(-1) ?? '';
      expect(Buffer.byteLength(result)).toBeLessThan(LIMITS.toolOutputBytes);
      expect(result).toMatch(/^first x+[^]*x+ last$/);
      return result;
    };
    expect(await shown([lookup])).toMatch(/\[… 476011 of 500011 bytes are left out …\]/);
    expect(await shown([lookup, toolset('always_allow')])).toMatch(/are in \/workspace\/\.longhaul\/outputs\/sevt_/);
  });

  it('is not held up by a workspace that takes no files: what is long is shown in part all the same', async () => {
    const session = await driver.open(
      [
        { tools: [bash('rm -rf .longhaul && touch .longhaul')] },
        { tools: [bash(`echo ran >> log; seq 20000`)] },
        { text: 'went on' },
      ],
      [toolset('always_allow')],
    );
    await over(session);
    const { error, text } = await driver.one<{ error: boolean; text: string }>(
      `SELECT is_error AS error, result->'content'->0->>'text' AS text FROM effects
       WHERE session_id = $1 AND step = 1`,
      session,
    );
    expect(error).toBe(false);
    expect(text).toMatch(/^1\n2\n[^]*\[… \d+ of \d+ bytes are left out …\][^]*20000\s*$/);
    const long = `begin ${'ä'.repeat(150_000)} end`;
    await driver.send(session, {
      type: 'user.message',
      content: `${long}\n${scriptMessage([{ text: 'ok' }]).content}`,
    });
    await over(session);
    expect(await driver.turnEnds(session)).toEqual(['end_turn', 'end_turn']);
    expect(textsOf(await promptOf(session)).at(-1)).toMatch(/^begin ä+[^]*\[… \d+ of \d+ bytes are left out …\]/);
  });

  it('leaves out old long results when the conversation is long, and begins as the one before it did', async () => {
    const make = bash('head -c 28000 /dev/zero | tr "\\0" "x" > large; echo made');
    const reads = Array.from({ length: 9 }, () => bash('cat large'));
    const session = await driver.open(
      [{ tools: [make] }, { tools: reads }, { tools: reads }, { tools: [bash('echo short')] }, { text: 'over' }],
      [toolset('always_allow')],
    );
    await over(session);
    const results = textsOf(await promptOf(session)).slice(1);
    const long = 'x'.repeat(28_000);
    expect(results.map((text) => (text === long ? 'long' : text))).toEqual([
      'made\n',
      ...reads.map(() => LEFT_OUT),
      ...reads.map(() => 'long'),
      'short\n',
    ]);
    const before = JSON.stringify(await promptOf(session));
    await driver.send(session, scriptMessage([{ tools: [bash('cat large')] }, { text: 'more' }]));
    await over(session);
    expect(JSON.stringify(await promptOf(session)).startsWith(before.slice(0, -1))).toBe(true);
  });

  it('that would be too large ends the turn with a reason to act on; so does the refusal of a provider', async () => {
    const session = await driver.open(picture());
    for (let sent = 1; sent < 5; sent += 1) {
      await over(session);
      await driver.send(session, picture());
    }
    await over(session);
    expect(await driver.turnEnds(session)).toEqual([...Array.from({ length: 4 }, () => 'end_turn'), 'context_full']);
    const ended = await api.get(`/v1/sessions/${session}`).expect(200);
    expect(ended.body).toMatchObject({ status: 'idle', stop_reason: { type: 'context_full' } });
    const { reason } = await driver.one<{ reason: string }>(
      `SELECT reason FROM inputs WHERE session_id = $1 ORDER BY turn DESC LIMIT 1`,
      session,
    );
    expect(reason).toMatch(/^The conversation has \d+ bytes, more than 4194304\. Start a new session/);

    const message = 'prompt is too long: 213462 tokens > 200000 maximum';
    const error = { status: 400, type: 'invalid_request_error', message };
    const refused = await driver.open([{ text: 'never', error }]);
    await over(refused);
    expect(await driver.turnEnds(refused)).toEqual(['context_full']);
    const told = await driver.one<{ error: { code: string; message: string } }>(
      `SELECT payload->'error' AS error FROM events WHERE session_id = $1 AND type = 'session.error' ORDER BY seq LIMIT 1`,
      refused,
    );
    expect(told.error.code).toBe('conversation_too_long');
    expect(told.error.message).toContain('213462 tokens');
    expect(told.error.message).toContain('a model of a larger context');
    const idle = await driver.one<object>(
      `SELECT payload->'stop_reason' AS stop_reason FROM events WHERE session_id = $1 AND type = 'session.status_idle'`,
      refused,
    );
    expect(idle).toEqual({ stop_reason: { type: 'retries_exhausted', detail: 'context_full' } });
  });
});
