import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import Anthropic from '@anthropic-ai/sdk';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { readCacheConfig } from '../../gateway/cache/config.ts';
import {
  createSession,
  errorOf,
  eventually,
  ledgerRows,
  mintKey,
  openTestBed,
  post,
  startGateway,
  startUpstream,
  type LedgerRow,
  type RunningGateway,
  type TestBed,
  type Upstream,
} from './support.ts';

const JSON_TYPE = { 'content-type': 'application/json' };
const SSE = { 'content-type': 'text/event-stream; charset=utf-8' };

let bed: TestBed;
let anthropic: Upstream;
let openai: Upstream;
let gateway: RunningGateway;
let other: RunningGateway;

beforeAll(async () => {
  [bed, anthropic, openai] = await Promise.all([openTestBed(), startUpstream(), startUpstream()]);
  const env = { ANTHROPIC_BASE_URL: anthropic.url, OPENAI_BASE_URL: `${openai.url}/v1`, OPENAI_API_KEY: 'x' };
  [gateway, other] = await Promise.all([startGateway(bed.pool, env), startGateway(bed.pool, env)]);
});
afterAll(async () => {
  await Promise.all([gateway.close(), other.close()]);
  await Promise.all([anthropic.close(), openai.close()]);
  await bed.close();
});
beforeEach(() => {
  anthropic.requests.length = 0;
  openai.requests.length = 0;
});

/** A session whose agent has this definition, and a key of it. */
async function sessionWith(
  definition: object,
  harness = 'test',
): Promise<{ sessionId: string; agentId: string; key: string; userId: string }> {
  const sessionId = await createSession(bed.pool);
  const stored = JSON.stringify({ harness, ...definition });
  const { rows } = await bed.pool.query<{ agent_id: string }>(
    'UPDATE sessions SET agent = $2 WHERE id = $1 RETURNING agent_id',
    [sessionId, stored],
  );
  const agentId = rows[0]?.agent_id ?? '';
  await bed.pool.query('UPDATE agent_versions SET definition = $2 WHERE agent_id = $1', [agentId, stored]);
  const userId = randomUUID();
  const key = await mintKey(bed.pool, { sessionId, agentId, agentVersion: 1, userId });
  return { sessionId, agentId, key, userId };
}
const CACHED = { response_cache: { ttl: '5m', tool_calls: false } };

/** An answer of the Messages protocol that nobody has given before. */
function messageAnswer(extra: object = {}): Record<string, unknown> {
  return {
    id: `msg_${randomUUID()}`,
    type: 'message',
    role: 'assistant',
    content: [{ type: 'text', text: randomUUID() }],
    stop_reason: 'end_turn',
    usage: { input_tokens: 10, output_tokens: 5, cache_read_input_tokens: 0 },
    ...extra,
  };
}
function messageStream(text: string, stop = 'end_turn'): string {
  return [
    `event: message_start\ndata: {"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":10,"output_tokens":1}}}\n\n`,
    `event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n`,
    `event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"${text}"}}\n\n`,
    `event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n`,
    `event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"${stop}"},"usage":{"output_tokens":40}}\n\n`,
    `event: message_stop\ndata: {"type":"message_stop"}\n\n`,
  ].join('');
}
const answersWith = (make: () => object) => (): void => {
  anthropic.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end(JSON.stringify(make()));
};
const answers = answersWith(messageAnswer);

const deployment = (model: string): object => ({ provider: 'anthropic', model, base_url: anthropic.url });

function closedGate(): { gate: Promise<void>; release: () => void } {
  let open: (() => void) | undefined;
  const gate = new Promise<void>((resolve) => (open = resolve));
  return { gate, release: () => open?.() };
}
const byText = (a: unknown, b: unknown): number => (String(a) < String(b) ? -1 : 1);

function ask(url: string, key: string, text: string, extra: object = {}, headers = {}): Promise<Response> {
  const body = { model: 'claude-opus-4-5', max_tokens: 9, messages: [{ role: 'user', content: text }], ...extra };
  return post(`${url}/v1/messages`, key, body, headers);
}

async function rowsOf(userId: string, count: number): Promise<LedgerRow[]> {
  return eventually(async () => {
    const rows = (await ledgerRows(bed.pool)).filter((row) => row['user_id'] === userId);
    expect(rows.length).toBeLessThanOrEqual(count);
    return rows.length === count && rows;
  });
}

interface Told {
  text: string;
  usage: Record<string, number>;
}
async function told(response: Response): Promise<Told> {
  const body = (await response.json()) as { content: { text: string }[]; usage: Record<string, number> };
  return { text: body.content[0]?.text ?? '', usage: body.usage };
}

describe('the response cache', () => {
  it('gives an answer again for nothing, and says so in header, usage and ledger', async () => {
    const { key, userId } = await sessionWith(CACHED);
    answers();
    const first = await ask(gateway.url, key, 'same');
    expect(first.headers.get('x-cache')).toBe('miss');
    const made = await told(first);
    // The other gateway shares the answer; fields in another order and other metadata ask for the same.
    const again = await post(`${other.url}/v1/messages`, key, {
      metadata: { user_id: randomUUID() },
      messages: [{ content: [{ text: 'same', type: 'text' }], role: 'user' }],
      max_tokens: 9,
      model: 'anthropic/claude-opus-4-5',
    });
    expect(again.status).toBe(200);
    expect(again.headers.get('x-cache')).toBe('hit');
    expect(await told(again)).toEqual({
      text: made.text,
      usage: { input_tokens: 0, output_tokens: 0, cache_read_input_tokens: 0 },
    });
    expect(anthropic.requests).toHaveLength(1);
    const [paid, free] = (await rowsOf(userId, 2)).toSorted(
      (a, b) => Number(b['cost_micros']) - Number(a['cost_micros']),
    );
    expect(paid).toMatchObject({ cache: null, input_tokens: 10 });
    expect(Number(paid?.['cost_micros'])).toBeGreaterThan(0);
    expect(free).toMatchObject({
      cache: 'hit',
      cost_micros: 0,
      input_tokens: 0,
      output_tokens: 0,
      provider: 'anthropic',
      model: 'claude-opus-4-5',
      http_status: 200,
    });
  });

  it('is of the team, the agent version and the question', async () => {
    const [one, two] = [await sessionWith(CACHED), await sessionWith(CACHED)];
    answers();
    await (await ask(gateway.url, one.key, 'whose')).text();
    expect((await ask(gateway.url, two.key, 'whose')).headers.get('x-cache')).toBe('miss');
    expect((await ask(gateway.url, one.key, 'whose', { temperature: 0.3 })).headers.get('x-cache')).toBe('miss');
    expect((await ask(gateway.url, one.key, 'whose?')).headers.get('x-cache')).toBe('miss');
    expect((await ask(gateway.url, one.key, 'whose')).headers.get('x-cache')).toBe('hit');
  });

  it('replays a stream as a stream, through the official SDK', async () => {
    const { key } = await sessionWith(CACHED);
    const bytes = messageStream('streamed');
    anthropic.answer = (_req, res) => res.writeHead(200, SSE).end(bytes);
    const client = new Anthropic({ baseURL: gateway.url, apiKey: key, maxRetries: 0 });
    const question = {
      model: 'claude-opus-4-5',
      max_tokens: 9,
      messages: [{ role: 'user' as const, content: 'stream' }],
    };
    const first = await client.messages.stream(question).finalMessage();
    const second = await client.messages.stream(question).finalMessage();
    expect(anthropic.requests).toHaveLength(1);
    expect(second.content).toEqual(first.content);
    expect(first.usage).toMatchObject({ input_tokens: 10, output_tokens: 40 });
    expect(second.usage).toMatchObject({ input_tokens: 0, output_tokens: 0 });
    const version = { 'anthropic-version': String(anthropic.requests[0]?.headers['anthropic-version']) };
    const raw = await ask(gateway.url, key, 'stream', { stream: true }, version);
    expect(raw.headers.get('content-type')).toBe(SSE['content-type']);
    expect(await raw.text()).toBe(
      bytes
        .replace('{"input_tokens":10,"output_tokens":1}', '{"input_tokens":0,"output_tokens":0}')
        .replace('{"output_tokens":40}', '{"output_tokens":0}'),
    );
    // A whole answer is an entry of its own.
    answers();
    expect((await ask(gateway.url, key, 'stream')).headers.get('x-cache')).toBe('miss');
  });

  it('makes one call for many that ask at once, here and at another gateway', async () => {
    const { key, userId } = await sessionWith(CACHED);
    const { gate, release } = closedGate();
    anthropic.answer = (_req, res) => {
      void gate.then(() => res.writeHead(200, JSON_TYPE).end(JSON.stringify(messageAnswer())));
    };
    const asked = Array.from({ length: 12 }, (_, n) => ask(n % 2 === 0 ? gateway.url : other.url, key, 'many'));
    await eventually(() => anthropic.requests.length > 0);
    release();
    const answered = await Promise.all(asked);
    expect(answered.map((response) => response.headers.get('x-cache')).toSorted(byText)).toEqual([
      ...Array.from({ length: 11 }, () => 'hit'),
      'miss',
    ]);
    const texts = await Promise.all(answered.map(async (response) => (await told(response)).text));
    expect(new Set(texts).size).toBe(1);
    expect(anthropic.requests).toHaveLength(1);
    const rows = await rowsOf(userId, 12);
    expect(rows.filter((row) => row['cache'] === 'hit')).toHaveLength(11);
  });

  it('lets those that waited go on by themselves when the call fails', async () => {
    const { key } = await sessionWith(CACHED);
    const { gate, release } = closedGate();
    let asked = 0;
    anthropic.answer = (_req, res) => {
      asked += 1;
      if (asked > 1) res.writeHead(200, JSON_TYPE).end(JSON.stringify(messageAnswer()));
      else
        void gate.then(() => res.writeHead(529, JSON_TYPE).end('{"error":{"type":"overloaded_error","message":"x"}}'));
    };
    const first = ask(gateway.url, key, 'fails');
    await eventually(() => asked === 1);
    const second = ask(gateway.url, key, 'fails');
    release();
    expect((await first).status).toBe(529);
    expect((await second).status).toBe(200);
    // What failed left nothing behind: the next asker makes the answer that is kept.
    expect((await ask(gateway.url, key, 'fails')).headers.get('x-cache')).toBe('miss');
    await eventually(async () => (await ask(gateway.url, key, 'fails')).headers.get('x-cache') === 'hit');
  });

  it.each([
    ['an error', (): [number, string] => [400, '{"error":{"type":"invalid_request_error","message":"no"}}']],
    ['a truncated answer', (): [number, string] => [200, JSON.stringify(messageAnswer({ stop_reason: 'max_tokens' }))]],
    ['a refusal', (): [number, string] => [200, JSON.stringify(messageAnswer({ stop_reason: 'refusal' }))]],
    [
      'a tool call',
      (): [number, string] => [
        200,
        JSON.stringify(
          messageAnswer({
            stop_reason: 'tool_use',
            content: [{ type: 'tool_use', id: 'toolu_1', name: 'bash', input: {} }],
          }),
        ),
      ],
    ],
    [
      'what the provider did by itself',
      (): [number, string] => [
        200,
        JSON.stringify(messageAnswer({ content: [{ type: 'web_search_tool_result', tool_use_id: 'x', content: [] }] })),
      ],
    ],
  ])('never keeps %s', async (_what, make) => {
    const { key } = await sessionWith(CACHED);
    anthropic.answer = (_req, res) => {
      const [status, body] = make();
      res.writeHead(status, JSON_TYPE).end(body);
    };
    await (await ask(gateway.url, key, 'bad')).text();
    expect((await ask(gateway.url, key, 'bad')).headers.get('x-cache')).toBe('miss');
    expect(anthropic.requests).toHaveLength(2);
  });

  it('never keeps a stream that broke off or was cut short', async () => {
    const { key } = await sessionWith(CACHED);
    const bytes = messageStream('cut');
    for (const body of [bytes.slice(0, -60), messageStream('cut', 'max_tokens')]) {
      anthropic.answer = (_req, res) => res.writeHead(200, SSE).end(body);
      await (await ask(gateway.url, key, 'cut', { stream: true })).text();
    }
    anthropic.answer = (_req, res) => res.writeHead(200, SSE).end(bytes);
    expect((await ask(gateway.url, key, 'cut', { stream: true })).headers.get('x-cache')).toBe('miss');
    expect(anthropic.requests).toHaveLength(3);
  });

  it('keeps tool calls where the agent says that they may be repeated', async () => {
    const { key } = await sessionWith({ response_cache: { ttl: '1h', tool_calls: true } });
    const content = [{ type: 'tool_use', id: 'toolu_1', name: 'bash', input: { command: 'ls' } }];
    answersWith(() => messageAnswer({ stop_reason: 'tool_use', content }))();
    await (await ask(gateway.url, key, 'tool')).text();
    const again = await ask(gateway.url, key, 'tool');
    expect(again.headers.get('x-cache')).toBe('hit');
    expect(await again.json()).toMatchObject({ content });
  });

  it('ends with the time to live', async () => {
    const { key } = await sessionWith(CACHED);
    answers();
    await (await ask(gateway.url, key, 'old')).text();
    expect((await ask(gateway.url, key, 'old')).headers.get('x-cache')).toBe('hit');
    const { rows } = await bed.pool.query<{ left: number }>(
      `SELECT extract(epoch FROM max(expires_at) - now())::int AS left FROM cached_answers`,
    );
    expect(rows[0]?.left).toBeGreaterThan(250);
    await bed.pool.query(`UPDATE cached_answers SET expires_at = now() WHERE state = 'complete'`);
    expect((await ask(gateway.url, key, 'old')).headers.get('x-cache')).toBe('miss');
    expect((await ask(gateway.url, key, 'old')).headers.get('x-cache')).toBe('hit');
  });

  it('is off unless asked for, and switched by a header where that is permitted', async () => {
    const plain = await sessionWith({});
    answers();
    expect((await ask(gateway.url, plain.key, 'q')).headers.get('x-cache')).toBeNull();
    const refused = await ask(gateway.url, plain.key, 'q', {}, { 'x-longhaul-cache': 'on' });
    expect(refused.status).toBe(403);
    expect((await errorOf(refused)).code).toBe('forbidden');
    const wrong = await ask(gateway.url, plain.key, 'q', {}, { 'x-longhaul-cache': 'yes' });
    expect([wrong.status, (await errorOf(wrong)).message]).toEqual([400, 'x-longhaul-cache: must be on or off']);

    const cached = await sessionWith(CACHED);
    await (await ask(gateway.url, cached.key, 'q')).text();
    expect(
      (await ask(gateway.url, cached.key, 'q', {}, { 'x-longhaul-cache': 'off' })).headers.get('x-cache'),
    ).toBeNull();

    const permitted = await mintKey(bed.pool);
    await bed.pool.query(`UPDATE virtual_keys SET cache = $1 WHERE session_id IS NULL`, [
      JSON.stringify({ response_cache: { ttl: '1h', tool_calls: false } }),
    ]);
    expect((await ask(gateway.url, permitted, 'k')).headers.get('x-cache')).toBeNull();
    const on = { 'x-longhaul-cache': 'on' };
    expect((await ask(gateway.url, permitted, 'k', {}, on)).headers.get('x-cache')).toBe('miss');
    expect((await ask(gateway.url, permitted, 'k', {}, on)).headers.get('x-cache')).toBe('hit');
  });

  it('records what it gives under an idempotency key, and leaves recorded answers alone', async () => {
    const { key, sessionId, userId } = await sessionWith(CACHED);
    answers();
    const made = await told(await ask(gateway.url, key, 'step', {}, { 'idempotency-key': `${sessionId}/0/0` }));
    const hit = await ask(gateway.url, key, 'step', {}, { 'idempotency-key': `${sessionId}/1/0` });
    expect([hit.headers.get('x-cache'), (await told(hit)).text]).toEqual(['hit', made.text]);
    const rows = await rowsOf(userId, 2);
    expect(rows.map((row) => [row['call_key'], row['cache'], row['turn']]).toSorted(byText)).toEqual([
      [`${sessionId}/0/0`, null, 0],
      [`${sessionId}/1/0`, 'hit', 1],
    ]);
    // The record counts, whatever happens to the cache.
    await bed.pool.query('DELETE FROM cached_answers');
    const replayed = await ask(other.url, key, 'step', {}, { 'idempotency-key': `${sessionId}/1/0` });
    expect(replayed.headers.get('x-longhaul-replayed')).toBe('true');
    expect((await told(replayed)).text).toBe(made.text);
    expect(anthropic.requests).toHaveLength(1);
    await rowsOf(userId, 2);
  });

  it('is of the model behind an alias, and not of the fallback that stood in for it', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'longhaul-cache-routes-'));
    const file = path.join(folder, 'gateway.yaml');
    const routes = [
      { name: 'main', retries: 0, deployments: [deployment('claude-opus-4-5')], fallbacks: { default: ['spare'] } },
      { name: 'also', retries: 0, deployments: [deployment('claude-opus-4-5')] },
      { name: 'spare', retries: 0, deployments: [deployment('claude-sonnet-5')] },
    ];
    await writeFile(file, JSON.stringify({ routes }));
    const routed = await startGateway(bed.pool, { LONGHAUL_GATEWAY_CONFIG: file });
    try {
      const { key } = await sessionWith(CACHED);
      anthropic.answer = (_req, res, body) => {
        const isMain = (JSON.parse(body) as { model: string }).model === 'claude-opus-4-5';
        res.writeHead(isMain ? 529 : 200, JSON_TYPE).end(JSON.stringify(isMain ? { type: 'error' } : messageAnswer()));
      };
      const first = await ask(routed.url, key, 'alias', { model: 'main' });
      expect([first.status, await first.text()]).toEqual([200, expect.any(String)]);
      answers();
      // `main` may rest after its failure; `also` is the same model.
      const also = async (): Promise<string | null> => {
        const answer = await ask(routed.url, key, 'alias', { model: 'also' });
        await answer.text();
        return answer.headers.get('x-cache');
      };
      expect(await also()).toBe('miss');
      // A request that meets the first one's end makes a call that is kept for nobody.
      await eventually(async () => (await also()) === 'hit');
      expect((await ask(routed.url, key, 'alias', { model: 'main' })).headers.get('x-cache')).toBe('hit');
    } finally {
      await routed.close();
      await rm(folder, { recursive: true });
    }
  });

  it('needs no money: what is there is given when the budget is spent', async () => {
    const sessionId = await createSession(bed.pool, { budgetCents: '1' });
    await bed.pool.query('UPDATE sessions SET agent = $2 WHERE id = $1', [sessionId, JSON.stringify(CACHED)]);
    const key = await mintKey(bed.pool, { sessionId });
    answersWith(() => messageAnswer({ usage: { input_tokens: 100_000, output_tokens: 5 } }))();
    expect((await ask(gateway.url, key, 'dear')).status).toBe(200);
    await eventually(async () => (await ask(gateway.url, key, randomUUID())).status === 402);
    const again = await ask(gateway.url, key, 'dear');
    expect([again.status, again.headers.get('x-cache')]).toEqual([200, 'hit']);
  });

  it('works for chat completions and responses', async () => {
    const { key } = await sessionWith(CACHED);
    const usage = { prompt_tokens: 5, completion_tokens: 6, prompt_tokens_details: { cached_tokens: 1 } };
    const chat = [
      `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: 'hi' }, finish_reason: null }], usage: null })}\n\n`,
      `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage: null })}\n\n`,
      `data: ${JSON.stringify({ choices: [], usage })}\n\n`,
      'data: [DONE]\n\n',
    ].join('');
    openai.answer = (_req, res) => res.writeHead(200, SSE).end(chat);
    const askChat = (extra: object = {}): Promise<Response> =>
      post(`${gateway.url}/v1/chat/completions`, key, {
        model: 'gpt-5',
        stream: true,
        messages: [{ role: 'user', content: 'hi' }],
        ...extra,
      });
    const made = await (await askChat()).text();
    const again = await askChat();
    expect(again.headers.get('x-cache')).toBe('hit');
    // Nobody sees a usage report that was not asked for, and who asks for it gets one.
    expect(await again.text()).toBe(made);
    expect(made).not.toContain('prompt_tokens');
    const reported = await askChat({ stream_options: { include_usage: true } });
    expect(reported.headers.get('x-cache')).toBe('hit');
    expect(await reported.text()).toContain('"prompt_tokens":0,"completion_tokens":0');

    const response = {
      id: 'resp_1',
      status: 'completed',
      output: [{ type: 'message', content: [{ type: 'output_text', text: 'x' }] }],
      usage: { input_tokens: 5, output_tokens: 6 },
    };
    openai.answer = (_req, res) =>
      res
        .writeHead(200, SSE)
        .end(`event: response.completed\ndata: ${JSON.stringify({ type: 'response.completed', response })}\n\n`);
    const askResponses = (extra: object = {}): Promise<Response> =>
      post(`${gateway.url}/v1/responses`, key, { model: 'gpt-5', stream: true, input: 'hi', store: false, ...extra });
    await (await askResponses()).text();
    expect((await askResponses()).headers.get('x-cache')).toBe('hit');
    // What depends on something the provider keeps cannot be known from the request, and what it keeps is somebody's.
    expect((await askResponses({ store: true })).headers.get('x-cache')).toBeNull();
    expect((await askResponses({ previous_response_id: 'resp_0' })).headers.get('x-cache')).toBeNull();
  });
});

describe('the content cache', () => {
  it('counts the tokens of the same bytes once', async () => {
    const key = await mintKey(bed.pool);
    anthropic.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end('{"input_tokens":12}');
    const count = (text: string): Promise<Response> =>
      post(`${gateway.url}/v1/messages/count_tokens`, key, {
        model: 'claude-opus-4-5',
        messages: [{ role: 'user', content: text }],
      });
    expect((await count('count me')).headers.get('x-cache')).toBe('miss');
    const again = await count('count me');
    expect([again.headers.get('x-cache'), await again.json()]).toEqual(['hit', { input_tokens: 12 }]);
    expect((await count('count me too')).headers.get('x-cache')).toBe('miss');
    expect(anthropic.requests).toHaveLength(2);
  });
});

describe('settings', () => {
  it('reads the time to live of the environment and refuses what it does not know', () => {
    expect(readCacheConfig({}).defaultTtlMs).toBe(300_000);
    expect(readCacheConfig({ LONGHAUL_ENVIRONMENT: 'staging' }).defaultTtlMs).toBe(3_600_000);
    expect(readCacheConfig({ LONGHAUL_ENVIRONMENT: 'production' }).defaultTtlMs).toBe(86_400_000);
    expect(() => readCacheConfig({ LONGHAUL_ENVIRONMENT: 'prod' })).toThrow('LONGHAUL_ENVIRONMENT');
    expect(() => readCacheConfig({ LONGHAUL_CACHE_ALERT_CALLS: '19' })).toThrow('LONGHAUL_CACHE_ALERT_CALLS');
  });
});
