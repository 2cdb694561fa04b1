import { createServer } from 'node:http';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { prefixHeader } from '../../activities/model/prefix.ts';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { readGatewayConfig } from '../../gateway/config.ts';
import { createGateway } from '../../gateway/server.ts';
import {
  createSession,
  eventually,
  listen,
  mintKey,
  openTestBed,
  post,
  startUpstream,
  stop,
  type TestBed,
  type Upstream,
} from './support.ts';

const JSON_TYPE = { 'content-type': 'application/json' };
const MODEL = 'claude-opus-4-5';
const MARK = { type: 'ephemeral' };

let bed: TestBed;
let upstream: Upstream;
let gateway: { url: string; close(): Promise<void> };
const registry = new Registry();
const logged: Record<string, unknown>[] = [];

beforeAll(async () => {
  [bed, upstream] = await Promise.all([openTestBed(), startUpstream()]);
  const log = new Writable({
    write: (line: Buffer, _encoding, done) => {
      logged.push(JSON.parse(line.toString()) as Record<string, unknown>);
      done();
    },
  });
  const config = readGatewayConfig({
    ANTHROPIC_BASE_URL: upstream.url,
    LONGHAUL_CACHE_ALERT_CALLS: '30',
    LONGHAUL_CACHE_ALERT_DROP_PERCENT: '30',
  });
  const made = createGateway({ pool: bed.pool, config, logger: pino({}, log), registry });
  const server = createServer((req, res) => void made.handle(req, res));
  const url = await listen(server);
  gateway = {
    url,
    close: async () => {
      await made.close(1_000);
      await stop(server);
    },
  };
});
afterAll(async () => {
  await gateway.close();
  await upstream.close();
  await bed.close();
});
beforeEach(() => {
  upstream.requests.length = 0;
  logged.length = 0;
  answers({});
});

function answers(usage: object): void {
  upstream.answer = (_req, res) =>
    res
      .writeHead(200, JSON_TYPE)
      .end(
        JSON.stringify({ type: 'message', content: [], stop_reason: 'end_turn', usage: { input_tokens: 1, ...usage } }),
      );
}

interface TestAgent {
  sessionId: string;
  agentId: string;
  key: string;
}
async function agentWith(definition: object, harness = 'opencode'): Promise<TestAgent> {
  const sessionId = await createSession(bed.pool);
  const stored = JSON.stringify({ harness, ...definition });
  const { rows } = await bed.pool.query<{ agent_id: string }>(
    'UPDATE sessions SET agent = $2 WHERE id = $1 RETURNING agent_id',
    [sessionId, stored],
  );
  const agentId = rows[0]?.agent_id ?? '';
  await bed.pool.query('UPDATE agent_versions SET definition = $2 WHERE agent_id = $1', [agentId, stored]);
  return { sessionId, agentId, key: await mintKey(bed.pool, { sessionId, agentId, agentVersion: 1 }) };
}
const AUTO = { prompt_caching: { type: 'auto', ttl: '1h' } };

const TOOLS = [
  { name: 'a', input_schema: { type: 'object' } },
  { name: 'b', input_schema: { type: 'object' } },
];
function request(extra: object = {}): Record<string, unknown> {
  return {
    model: MODEL,
    max_tokens: 9,
    tools: TOOLS,
    system: 'Be brief.',
    messages: [{ role: 'user', content: 'hi' }],
    ...extra,
  };
}
const ask = (key: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  post(`${gateway.url}/v1/messages`, key, body, headers);
const seen = (): Record<string, unknown> => JSON.parse(upstream.requests.at(-1)?.body ?? '') as Record<string, unknown>;

async function count(name: string): Promise<number> {
  const metric = await registry.getSingleMetric(name)?.get();
  return metric?.values.reduce((sum, { value }) => sum + value, 0) ?? 0;
}
async function audit(agentId: string, action: string): Promise<Record<string, unknown>[]> {
  const { rows } = await bed.pool.query<Record<string, unknown>>(
    'SELECT session_id, details FROM audit WHERE resource = $1 AND action = $2 ORDER BY seq',
    [agentId, action],
  );
  return rows;
}

describe('breakpoints', () => {
  it('are placed for an agent that wants them', async () => {
    const { key } = await agentWith(AUTO);
    expect((await ask(key, request())).status).toBe(200);
    const long = { ...MARK, ttl: '1h' };
    expect(seen()).toEqual({
      ...request(),
      tools: [TOOLS[0], { ...TOOLS[1], cache_control: long }],
      system: [{ type: 'text', text: 'Be brief.', cache_control: long }],
      messages: [{ role: 'user', content: [{ type: 'text', text: 'hi', cache_control: MARK }] }],
    });
  });

  it('are placed for a key that wants them', async () => {
    const { key } = await createApiKey(bed.pool, {
      name: 'ci',
      userId: 'user',
      teamId: 'team',
      cache: { prompt_caching: { type: 'auto', ttl: '5m' } },
    });
    await ask(key, request());
    expect(JSON.stringify(seen()).match(/cache_control/g)).toHaveLength(3);
  });

  it('leave those of the caller alone, and a request that has four as it is', async () => {
    const { key } = await agentWith(AUTO);
    const own = { type: 'text', text: 'x', cache_control: MARK };
    const sent = JSON.stringify(request({ system: [own, own, own, own] }), null, 1);
    await ask(key, sent);
    expect(upstream.requests.at(-1)?.body).toBe(sent);
  });

  it.each([
    ['an agent that says nothing', {}],
    ['an agent that wants none', { prompt_caching: { type: 'off' } }],
  ])('are not placed for %s: every byte passes', async (_who, definition) => {
    const { key } = await agentWith(definition);
    const sent = JSON.stringify(request(), null, 1);
    await ask(key, sent);
    expect(upstream.requests.at(-1)?.body).toBe(sent);
  });

  it('are the built-in loop’s own business', async () => {
    const { key } = await agentWith({}, 'native');
    const sent = JSON.stringify(request(), null, 1);
    await ask(key, sent);
    expect(upstream.requests.at(-1)?.body).toBe(sent);
  });

  it('do not make a bad body worse', async () => {
    const { key } = await agentWith(AUTO);
    const sent = '{"model":"claude-opus-4-5","messages":"no list","tools":[1,2],"system":{"a":"\\ud800"}}';
    expect((await ask(key, sent)).status).toBe(200);
    expect(upstream.requests.at(-1)?.body).toBe(sent);
  });
});

describe('the static prefix', () => {
  it('is told to be too short, in the header of each answer and once in the log', async () => {
    const { key } = await agentWith(AUTO);
    const before = await count('longhaul_prompt_prefix_below_minimum_total');
    for (let call = 0; call < 2; call += 1) {
      const warning = (await ask(key, request())).headers.get('x-longhaul-cache-warning');
      expect(warning).toMatch(/^prefix_below_minimum; tokens="\d+", minimum="4096"$/);
    }
    expect(await count('longhaul_prompt_prefix_below_minimum_total')).toBe(before + 2);
    expect(logged.filter(({ msg }) => msg === 'static prefix is too short to be cached')).toHaveLength(1);
    const long = await ask(key, request({ system: 'word '.repeat(4_000) }));
    expect(long.headers.get('x-longhaul-cache-warning')).toBeNull();
    expect((await ask(key, request({ model: 'claude-opus-5-5' }))).headers.get('x-longhaul-cache-warning')).toBeNull();
  });

  it('that is long enough and still not cached is told once in the log', async () => {
    const { key } = await agentWith(AUTO);
    const before = await count('longhaul_prompt_breakpoints_ignored_total');
    for (const usage of [
      { input_tokens: 9_000 },
      { input_tokens: 9_000 },
      { input_tokens: 9_000, cache_read_input_tokens: 1 },
    ]) {
      answers(usage);
      await ask(key, request());
    }
    expect(await count('longhaul_prompt_breakpoints_ignored_total')).toBe(before + 2);
    expect(logged.filter(({ msg }) => msg === 'the provider caches nothing of a prompt with breakpoints')).toHaveLength(
      1,
    );
  });

  it('is remembered, and a change within a version is told once', async () => {
    const { key, agentId, sessionId } = await agentWith(AUTO);
    const changes = await count('longhaul_prompt_prefix_changes_total');
    const fingerprints = async (): Promise<string[]> => {
      const { rows } = await bed.pool.query<{ fingerprint: string }>(
        'SELECT fingerprint FROM prompt_prefixes WHERE agent_id = $1 ORDER BY first_seen_at',
        [agentId],
      );
      return rows.map(({ fingerprint }) => fingerprint);
    };
    await ask(key, request());
    // Another conversation, another order of fields, marks of the caller: the same prefix.
    await ask(key, request({ messages: [{ role: 'user', content: 'other' }] }));
    await ask(key, {
      ...request(),
      tools: TOOLS.map(({ name, input_schema }) => ({ input_schema, name, cache_control: MARK })),
    });
    await eventually(async () => (await fingerprints()).length === 1);
    expect(await audit(agentId, 'prompt.prefix_changed')).toEqual([]);

    await ask(key, request({ system: 'Be brief. It is 12:47.' }));
    await eventually(async () => (await fingerprints()).length === 2);
    const [first] = await fingerprints();
    // Back and forth: nothing new.
    await ask(key, request());
    await ask(key, request({ system: 'Be brief. It is 12:47.' }));
    expect(await audit(agentId, 'prompt.prefix_changed')).toEqual([
      { session_id: sessionId, details: { agent_version: 1, changed: ['system'], before: first } },
    ]);
    await eventually(async () => (await count('longhaul_prompt_prefix_changes_total')) === changes + 1);
    expect(logged).toContainEqual(
      expect.objectContaining({ msg: 'static prefix of an agent version has changed', agentId, changed: ['system'] }),
    );
  });

  it('is bounded: a prompt that is never the same twice fills nothing', async () => {
    const { key, agentId } = await agentWith(AUTO);
    for (let call = 0; call < 25; call += 1) await ask(key, request({ system: `It is ${call}.` }));
    const rows = async (): Promise<number> =>
      (await bed.pool.query('SELECT 1 FROM prompt_prefixes WHERE agent_id = $1', [agentId])).rows.length;
    await eventually(async () => (await rows()) === 20);
    expect(await audit(agentId, 'prompt.prefix_changed')).toHaveLength(19);
  });

  it('is told by the built-in loop, and believed of nobody else', async () => {
    const prompt = {
      tools: [{ name: 'a', description: 'x', input_schema: { type: 'object' as const } }],
      system: 's',
      skills: [],
    };
    const header = { 'x-longhaul-prompt-prefix': prefixHeader(prompt) };
    const prefixes = async (agentId: string): Promise<number> =>
      (await bed.pool.query('SELECT 1 FROM prompt_prefixes WHERE agent_id = $1', [agentId])).rows.length;
    const native = await agentWith({}, 'native');
    const warned = await ask(native.key, request(), header);
    expect(warned.headers.get('x-longhaul-cache-warning')).toContain('minimum="4096"');
    await eventually(async () => (await prefixes(native.agentId)) === 1);
    await ask(native.key, request(), { 'x-longhaul-prompt-prefix': prefixHeader({ ...prompt, tools: [] }) });
    await eventually(async () => (await audit(native.agentId, 'prompt.prefix_changed')).length === 1);
    expect(await audit(native.agentId, 'prompt.prefix_changed')).toMatchObject([{ details: { changed: ['tools'] } }]);

    const stranger = await agentWith({}, 'opencode');
    await ask(stranger.key, request(), header);
    // A session that replaced parts of its agent has another prefix by right.
    const other = await agentWith({}, 'native');
    await bed.pool.query(`UPDATE sessions SET agent = agent || '{"system": "own"}' WHERE id = $1`, [other.sessionId]);
    await ask(other.key, request(), header);
    const last = await agentWith({}, 'native');
    await ask(last.key, request(), header);
    await eventually(async () => (await prefixes(last.agentId)) === 1);
    expect([await prefixes(stranger.agentId), await prefixes(other.agentId)]).toEqual([0, 0]);
  });
});

describe('hit rates', () => {
  it('are counted by agent version, and a fall is told once with the change of prefix before it', async () => {
    const { key, agentId } = await agentWith(AUTO);
    const drops = await count('longhaul_cache_hit_rate_drops_total');
    const call = async (hit: boolean, extra: object = {}): Promise<void> => {
      answers(hit ? { cache_read_input_tokens: 5_000 } : { cache_creation_input_tokens: 5_000 });
      expect((await ask(key, request(extra))).status).toBe(200);
    };
    for (let done = 0; done < 35; done += 1) await call(true);
    expect(await count('longhaul_cache_hit_rate_drops_total')).toBe(drops);
    // Too small to be cached: it says nothing.
    answers({});
    await ask(key, request());
    await call(false, { system: 'It is 12:47.' });
    await eventually(async () => (await audit(agentId, 'prompt.prefix_changed')).length === 1);
    for (let done = 0; done < 8; done += 1) await call(false, { system: 'It is 12:47.' });
    await eventually(async () => (await audit(agentId, 'cache.hit_rate_dropped')).length === 1);
    expect(await count('longhaul_cache_hit_rate_drops_total')).toBe(drops + 1);
    expect(await audit(agentId, 'cache.hit_rate_dropped')).toMatchObject([
      {
        details: {
          agent_version: 1,
          layer: 'prompt',
          prefix_changed: ['system'],
          prefix_changed_at: expect.any(String),
        },
      },
    ]);
    expect(logged.filter(({ msg }) => msg === 'cache hit rate has dropped')).toHaveLength(1);
    await eventually(async () => {
      const { rows } = await bed.pool.query(
        `SELECT layer, hits, misses FROM cache_counts WHERE agent_id = $1 AND hits = 35 AND misses = 9`,
        [agentId],
      );
      return rows.length === 1;
    });
    expect(await registry.metrics()).toMatch(/longhaul_cache_lookups_total\{layer="prompt",result="hit"\} \d+/);
  });
});
