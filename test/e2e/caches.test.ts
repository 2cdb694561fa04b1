import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bash, scriptMessage, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

interface CacheAnswer {
  prompt_fingerprint: string | null;
  prompt_prefix_changes: number;
  prompt_prefixes: { size_bytes: number }[];
  layers: { layer: string; hits: number; misses: number }[];
}

describe('caches of sessions', { timeout: STACK_TEST_MS }, () => {
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

  const cacheOf = async (agentId: string): Promise<CacheAnswer> =>
    (await driver.call('GET', `/v1/agents/${agentId}/cache`)).body as unknown as CacheAnswer;
  const agentWith = async (more: object): Promise<string> => {
    const tools = [{ type: 'agent_toolset_20260401' }];
    const { body } = await driver.call('POST', '/v1/agents', { name: 'cached', model: 'scripted', tools, ...more });
    return body.id ?? '';
  };

  it('a session gets the answer another one paid for; its tools run anew', async () => {
    const agent = await agentWith({ response_cache: { ttl: '1h', tool_calls: true } });
    const environment_id = await driver.environment();
    const say = scriptMessage([{ tools: [bash('echo $RANDOM$RANDOM > made; cat made')] }, { text: 'done' }]);
    const run = async (): Promise<string> => {
      const { body } = await driver.call('POST', '/v1/sessions', { agent, environment_id, initial_events: [say] });
      await driver.quiet([body.id ?? '']);
      return body.id ?? '';
    };
    const [one, two] = [await run(), await run()];
    const rows = (session: string): Promise<{ step: number; cache: string | null; cost_micros: number }[]> =>
      driver.query('SELECT step, cache, cost_micros::int FROM ledger WHERE session_id = $1 ORDER BY step', [session]);
    const paid = await rows(one);
    expect(paid.map(({ cache }) => cache)).toEqual([null, null]);
    expect(paid.every((row) => row.cost_micros > 0)).toBe(true);
    // The tool said something else, so the second step asks something else.
    expect(await rows(two)).toMatchObject([
      { step: 0, cache: 'hit', cost_micros: 0 },
      { step: 1, cache: null },
    ]);
    expect(await driver.turnEnds(two)).toEqual(['end_turn']);
    const said = await driver.query<{ text: string }>(
      `SELECT payload->'content'->0->>'text' AS text FROM events WHERE type = 'agent.tool_result' AND session_id = ANY($1)`,
      [[one, two]],
    );
    expect(new Set(said.map(({ text }) => text)).size).toBe(2);

    await driver.until('the counts are there', async () => {
      const { layers } = await cacheOf(agent);
      return layers.some(({ layer, hits, misses }) => layer === 'response' && hits === 1 && misses === 3);
    });
  });

  it('the prefix of an agent version is known from its sessions, and stays the same', async () => {
    const agent = await agentWith({ system: 'Be brief.' });
    expect(await cacheOf(agent)).toMatchObject({ prompt_fingerprint: null });
    const environment_id = await driver.environment();
    for (const text of ['one', 'two']) {
      const initial_events = [scriptMessage([{ text }])];
      const { body } = await driver.call('POST', '/v1/sessions', { agent, environment_id, initial_events });
      await driver.quiet([body.id ?? '']);
    }
    await driver.until('the prefix is known', async () => (await cacheOf(agent)).prompt_fingerprint !== null);
    const known = await cacheOf(agent);
    expect(known).toMatchObject({ prompt_prefix_changes: 0, layers: [] });
    expect(known.prompt_prefixes[0]?.size_bytes).toBeGreaterThan(500);
  });
});
