import { writeFile, mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import Anthropic from '@anthropic-ai/sdk';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { insertModelRoute, setModelPolicy, type RouteBody } from '../../db/queries/model-routes.ts';
import {
  errorOf,
  eventually,
  ledgerRows,
  messagesRequest,
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
const SSE = { 'content-type': 'text/event-stream' };
const ANSWER = '{"usage":{"prompt_tokens":3,"completion_tokens":4}}';

let bed: TestBed;
let one: Upstream;
let two: Upstream;
let folder: string;
let file: string;
const gateways: RunningGateway[] = [];

beforeAll(async () => {
  [bed, one, two] = await Promise.all([openTestBed(), startUpstream(), startUpstream()]);
  folder = await mkdtemp(path.join(os.tmpdir(), 'longhaul-routes-'));
  file = path.join(folder, 'gateway.yaml');
});
afterAll(async () => {
  await Promise.all(gateways.map((gateway) => gateway.close()));
  await Promise.all([one.close(), two.close()]);
  await bed.close();
  await rm(folder, { recursive: true });
});
beforeEach(async () => {
  for (const upstream of [one, two]) {
    upstream.requests.length = 0;
    upstream.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end(ANSWER);
  }
  await bed.pool.query('TRUNCATE model_routes, model_policies');
});

const compatible = (upstream: Upstream, extra: object = {}): object => ({
  provider: 'openai-compatible',
  model: 'm',
  base_url: `${upstream.url}/v1`,
  ...extra,
});
const both = (): object[] => [compatible(one, { id: 'one', model: 'm1' }), compatible(two, { id: 'two', model: 'm2' })];
const refuse =
  (status: number, body: object = {}, headers: Record<string, string> = {}): Upstream['answer'] =>
  (_req, res) =>
    void res.writeHead(status, { ...JSON_TYPE, ...headers }).end(JSON.stringify(body));

/** A head, and then nothing. */
const hangUp: Upstream['answer'] = (_req, res) => {
  res.writeHead(200, SSE).flushHeaders();
  setImmediate(() => res.destroy());
};

/** A stream that breaks off after its first event. */
const cut: Upstream['answer'] = (_req, res) => {
  res.writeHead(200, SSE);
  res.write('data: {"choices":[{"delta":{"content":"a"}}]}\n\n', () => res.destroy());
};

/** A gateway with these routes in its file. */
async function withRoutes(
  routes: object[],
  rest: object = {},
  env: Record<string, string> = {},
): Promise<RunningGateway> {
  await writeFile(file, JSON.stringify({ routes, ...rest }));
  const gateway = await startGateway(bed.pool, { LONGHAUL_GATEWAY_CONFIG: file, ...env });
  gateways.push(gateway);
  return gateway;
}

const route = (deployment: object): RouteBody => ({ deployments: [deployment] }) as unknown as RouteBody;

let users = 0;
async function newKey(teamId = 'team'): Promise<{ key: string; row: () => Promise<LedgerRow> }> {
  users += 1;
  const userId = `user-${users}`;
  const key = await mintKey(bed.pool, { userId, teamId });
  const row = (): Promise<LedgerRow> =>
    eventually(async () => (await ledgerRows(bed.pool)).find((found) => found['user_id'] === userId));
  return { key, row };
}

const chat = (gateway: RunningGateway, key: string, model: string, extra: object = {}): Promise<Response> =>
  post(`${gateway.url}/v1/chat/completions`, key, { model, messages: [], ...extra });

describe('aliases', () => {
  it('put the deployment’s own model into the body and change no other byte', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: [compatible(one, { id: 'first' })] }], {
      aliases: { quick: 'fast' },
    });
    const { key, row } = await newKey();
    const sent = '{ "messages":[],\n "model" : "quick","x":"\\u00e9" }';
    expect(await (await post(`${gateway.url}/v1/chat/completions`, key, sent)).text()).toBe(ANSWER);
    expect(one.requests[0]?.body).toBe(sent.replace('"quick"', '"m"'));
    expect(await row()).toMatchObject({
      requested_model: 'quick',
      model: 'm',
      provider: 'openai-compatible',
      model_deployment: 'first',
      attempts: null,
    });
  });

  it('take whole families of names', async () => {
    const gateway = await withRoutes([
      { name: 'lab/*', deployments: [compatible(one, { model: '*' })] },
      { name: 'lab/big-*', deployments: [compatible(two, { model: 'large-*' })] },
    ]);
    const { key } = await newKey();
    await (await chat(gateway, key, 'lab/small')).text();
    await (await chat(gateway, key, 'lab/big-7')).text();
    expect(one.requests.map(({ body }) => (JSON.parse(body) as { model: string }).model)).toEqual(['small']);
    expect(two.requests.map(({ body }) => (JSON.parse(body) as { model: string }).model)).toEqual(['large-7']);
  });

  it('never parse a large body', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: [compatible(one)] }]);
    const { key } = await newKey();
    const messages = Array.from({ length: 800 }, (_, index) => ({
      role: index % 2 === 0 ? 'user' : 'assistant',
      content: `const answer = "${index}";\n`.repeat(25),
    }));
    const body = JSON.stringify({ messages, stream: true, stream_options: { x: 1 }, model: 'fast' });
    expect(body.length).toBeGreaterThan(400_000);
    const { parse } = JSON;
    let longest = 0;
    JSON.parse = (text: string, ...rest: []): unknown => {
      longest = Math.max(longest, text.length);
      return parse(text, ...rest);
    };
    try {
      one.answer = (_req, res) => res.writeHead(200, SSE).end('data: [DONE]\n\n');
      await (await post(`${gateway.url}/v1/chat/completions`, key, body)).text();
    } finally {
      JSON.parse = parse;
    }
    expect(longest).toBeLessThan(1_000);
    const seen = JSON.parse(one.requests[0]?.body ?? '') as Record<string, unknown>;
    expect(seen).toMatchObject({ model: 'm', stream_options: { x: 1, include_usage: true } });
    expect(seen['messages']).toEqual(messages);
  });

  it('are listed for those who may use them, and refused in a protocol their provider does not speak', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: [compatible(one)] }], {
      teams: { narrow: { allowed_models: ['other-*'] } },
    });
    const { key } = await newKey();
    const page = await new Anthropic({ baseURL: gateway.url, apiKey: key }).models.list();
    expect(page.data.map(({ id }) => id)).toEqual(expect.arrayContaining(['fast', 'scripted']));
    const wrong = await post(`${gateway.url}/v1/messages`, key, messagesRequest('hi', { model: 'fast' }));
    expect(wrong.status).toBe(404);
    expect((await errorOf(wrong)).message).toContain('/v1/chat/completions or /v1/responses');
    const narrow = await newKey('narrow');
    const refused = await chat(gateway, narrow.key, 'fast');
    expect(refused.status).toBe(403);
    expect((await errorOf(refused)).code).toBe('model_not_allowed');
    const list = (await (await fetch(`${gateway.url}/v1/models`, { headers: { 'x-api-key': narrow.key } })).json()) as {
      data: unknown[];
    };
    expect(list.data).toEqual([]);
    expect(one.requests).toEqual([]);
  });

  it('say which variable is missing, not what another one holds', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: [compatible(one, { api_key: 'env:NOT_SET' })] }]);
    const { key } = await newKey();
    const response = await chat(gateway, key, 'fast');
    expect(response.status).toBe(502);
    expect((await errorOf(response)).message).toContain('the variable NOT_SET is not set');
  });
});

describe('attempts', () => {
  it.each([
    ['500', refuse(500), 'unavailable', 500],
    ['529', refuse(529), 'unavailable', 529],
    ['429', refuse(429), 'rate_limited', 429],
    ['a wrong key', refuse(401), 'auth', 401],
    ['a model it does not have', refuse(404), 'not_found', 404],
    ['a cut connection', ((_req, res) => void res.destroy()) satisfies Upstream['answer'], 'unavailable', null],
    ['an end before the first byte', hangUp, 'unavailable', 200],
    ['silence', (() => undefined) satisfies Upstream['answer'], 'timeout', null],
  ])('go on to the next deployment after %s', async (_what, answer, error, status) => {
    const gateway = await withRoutes([
      {
        name: 'fast',
        deployments: [
          compatible(one, { id: 'one', model: 'm1', first_byte_timeout_ms: 300, weight: 1 }),
          compatible(two, { id: 'two', model: 'm2', weight: 0 }),
        ],
      },
    ]);
    one.answer = answer;
    two.answer = (_req, res) => res.writeHead(200, SSE).end('data: {"choices":[]}\n\ndata: [DONE]\n\n');
    const { key, row } = await newKey();
    const response = await chat(gateway, key, 'fast', { stream: true });
    expect(response.status).toBe(200);
    expect(await response.text()).toContain('[DONE]');
    const written = await row();
    expect(written).toMatchObject({ model: 'm2', model_deployment: 'two', error: null });
    expect(written['attempts']).toMatchObject([
      { deployment: 'one', model: 'm1', status, error },
      { deployment: 'two', model: 'm2', status: 200, error: null },
    ]);
  });

  it('that cannot be begun are the end of the call, not of the process', { timeout: 60_000 }, async () => {
    const gateway = await withRoutes([
      {
        name: 'fast',
        deployments: [
          compatible(one, { id: 'one', model: 'fast', timeout_ms: 300, weight: 1 }),
          compatible(two, { id: 'two', model: 'm2', weight: 0 }),
        ],
      },
    ]);
    one.answer = () => undefined;
    const { key } = await newKey();
    // Good for a parser, and for who wants these very bytes; too deep to be written with another name in it.
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    const body = `{"model":"x","model":"fast","messages":[],"a":${deep}}`;
    const response = await post(`${gateway.url}/v1/chat/completions`, key, body);
    expect([response.status, (await errorOf(response)).code]).toEqual([400, 'invalid_json']);
    expect(one.requests).toHaveLength(1);
  });

  it('end with the first byte: what breaks later is told, not made again', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: both(), strategy: 'least-busy', retries: 5 }]);
    one.answer = cut;
    two.answer = cut;
    const { key, row } = await newKey();
    const text = await (await chat(gateway, key, 'fast', { stream: true })).text();
    expect(text).toContain('"content":"a"');
    expect(text).toContain('provider_unavailable');
    expect(one.requests.length + two.requests.length).toBe(1);
    expect((await row())['attempts']).toMatchObject([{ status: 200, error: 'unavailable' }]);
  });

  it('give the provider’s own answer when nobody is left', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: [compatible(one)], retries: 2 }]);
    one.answer = refuse(503, { error: { message: 'we are down' } });
    const { key, row } = await newKey();
    const response = await chat(gateway, key, 'fast');
    expect(response.status).toBe(503);
    expect((await errorOf(response)).message).toBe('we are down');
    expect(one.requests).toHaveLength(3);
    expect((await row())['attempts']).toHaveLength(3);
  });

  it('are not made for a request that is itself wrong', async () => {
    const gateway = await withRoutes([
      { name: 'fast', deployments: both(), fallbacks: { default: ['spare'] } },
      { name: 'spare', deployments: both() },
    ]);
    one.answer = refuse(400, { error: { message: 'messages: bad' } });
    two.answer = one.answer;
    const { key } = await newKey();
    expect((await chat(gateway, key, 'fast')).status).toBe(400);
    expect(one.requests.length + two.requests.length).toBe(1);
  });

  it('see an error in the first event of a stream', async () => {
    const gateway = await withRoutes([
      {
        name: 'claude',
        deployments: [
          { provider: 'anthropic', model: 'c', base_url: one.url },
          { provider: 'anthropic', model: 'c', base_url: two.url, weight: 0 },
        ],
      },
    ]);
    one.answer = (_req, res) =>
      res
        .writeHead(200, SSE)
        .end('event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n');
    two.answer = (_req, res) => res.writeHead(200, SSE).end('event: message_stop\ndata: {"type":"message_stop"}\n\n');
    const { key } = await newKey();
    const body = messagesRequest('hi', { model: 'claude', stream: true });
    expect(await (await post(`${gateway.url}/v1/messages`, key, body)).text()).toContain('message_stop');
  });
});

describe('fallbacks', () => {
  it('go by why the attempt failed', async () => {
    const gateway = await withRoutes([
      {
        name: 'small',
        retries: 0,
        deployments: [compatible(one, { id: 'small' })],
        fallbacks: { context_window: ['big'], default: ['spare'] },
      },
      { name: 'big', deployments: [compatible(two, { id: 'big', model: 'large' })] },
      { name: 'spare', deployments: [compatible(two, { id: 'spare', model: 'other' })] },
    ]);
    const { key, row } = await newKey();
    one.answer = refuse(400, { error: { code: 'context_length_exceeded', message: 'maximum context length is 8' } });
    expect((await chat(gateway, key, 'small')).status).toBe(200);
    expect((await row())['attempts']).toMatchObject([{ error: 'context_window' }, { deployment: 'big', error: null }]);
    one.answer = refuse(500);
    const other = await newKey();
    expect((await chat(gateway, other.key, 'small')).status).toBe(200);
    expect(await other.row()).toMatchObject({ model_deployment: 'spare', model: 'other', requested_model: 'small' });
  });

  it('never go round in a circle', async () => {
    const gateway = await withRoutes([
      { name: 'a', retries: 0, deployments: [compatible(one)], fallbacks: { default: ['b', 'a', 'nothing'] } },
      { name: 'b', retries: 0, deployments: [compatible(two)], fallbacks: { default: ['a'] } },
    ]);
    one.answer = refuse(500);
    two.answer = refuse(502);
    const { key } = await newKey();
    expect((await chat(gateway, key, 'a')).status).toBe(502);
    expect([one.requests.length, two.requests.length]).toEqual([1, 1]);
  });
});

describe('cooldown', () => {
  it('leaves a deployment alone that keeps failing', async () => {
    const gateway = await withRoutes([
      { name: 'fast', deployments: both(), allowed_fails: 1, cooldown_ms: 600_000, strategy: 'simple-shuffle' },
    ]);
    one.answer = refuse(500);
    const { key } = await newKey();
    await eventually(async () => {
      expect((await chat(gateway, key, 'fast')).status).toBe(200);
      return one.requests.length === 2;
    });
    for (let call = 0; call < 20; call += 1) await (await chat(gateway, key, 'fast')).text();
    expect(one.requests).toHaveLength(2);
  });

  it('obeys Retry-After: who said it is not asked before, and the caller is told when', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: [compatible(one)] }]);
    one.answer = refuse(429, { error: { message: 'slow down' } }, { 'retry-after': '120' });
    const { key } = await newKey();
    const first = await chat(gateway, key, 'fast');
    expect([first.status, first.headers.get('retry-after')]).toEqual([429, '120']);
    await first.text();
    const second = await chat(gateway, key, 'fast');
    expect(second.status).toBe(429);
    expect(Number(second.headers.get('retry-after'))).toBeGreaterThan(100);
    expect((await errorOf(second)).code).toBe('provider_rate_limited');
    expect(one.requests).toHaveLength(1);
  });

  it('waits for a short Retry-After itself', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: [compatible(one)], cooldown_ms: 0 }]);
    const times: number[] = [];
    one.answer = (_req, res) => {
      times.push(performance.now());
      if (times.length > 1) res.writeHead(200, JSON_TYPE).end(ANSWER);
      else res.writeHead(429, { 'retry-after-ms': '400' }).end('{}');
    };
    const { key } = await newKey();
    expect((await chat(gateway, key, 'fast')).status).toBe(200);
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(390);
  });

  it('does not keep the only deployment from being asked', async () => {
    const gateway = await withRoutes([
      { name: 'fast', deployments: [compatible(one)], retries: 0, allowed_fails: 0, cooldown_ms: 600_000 },
    ]);
    one.answer = refuse(500);
    const { key } = await newKey();
    expect((await chat(gateway, key, 'fast')).status).toBe(500);
    one.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end(ANSWER);
    expect((await chat(gateway, key, 'fast')).status).toBe(200);
  });
});

describe('strategies', () => {
  it('share calls out by weight', async () => {
    const gateway = await withRoutes([
      { name: 'fast', deployments: [compatible(one, { weight: 3 }), compatible(two, { weight: 1 })] },
    ]);
    const { key } = await newKey();
    for (let call = 0; call < 80; call += 1) await (await chat(gateway, key, 'fast')).text();
    // 60 expected; 40 or fewer happens once in ten million runs.
    expect(one.requests.length).toBeGreaterThan(40);
    expect(two.requests.length).toBeGreaterThan(2);
  });

  it('prefer who has fewer calls under way', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: both(), strategy: 'least-busy' }]);
    const { key } = await newKey();
    const held: (() => void)[] = [];
    const slow: Upstream['answer'] = (_req, res) => held.push(() => res.writeHead(200, JSON_TYPE).end(ANSWER));
    one.answer = slow;
    two.answer = slow;
    const calls: Promise<Response>[] = [];
    for (let call = 1; call <= 6; call += 1) {
      calls.push(chat(gateway, key, 'fast'));
      await eventually(() => one.requests.length + two.requests.length === call);
    }
    expect([one.requests.length, two.requests.length]).toEqual([3, 3]);
    for (const release of held) release();
    await Promise.all(calls);
  });

  it('prefer who answers sooner', async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: both(), strategy: 'latency-based' }]);
    one.answer = (_req, res) => void setTimeout(() => res.writeHead(200, JSON_TYPE).end(ANSWER), 150);
    const { key } = await newKey();
    for (let call = 0; call < 20; call += 1) await (await chat(gateway, key, 'fast')).text();
    expect(one.requests).toHaveLength(1);
    expect(two.requests).toHaveLength(19);
  });
});

describe('configuration', () => {
  it('of a team is taken from Postgres at once, and only for that team', async () => {
    const gateway = await withRoutes([], {}, { LONGHAUL_GATEWAY_HOSTS: '127.0.0.1' });
    const [mine, theirs] = [await newKey('mine'), await newKey('theirs')];
    expect((await chat(gateway, mine.key, 'own')).status).toBe(404);
    await insertModelRoute(bed.pool, { teamId: 'mine', userId: 'u', name: 'own', spec: route(compatible(one)) });
    await eventually(async () => (await chat(gateway, mine.key, 'own')).status === 200);
    expect((await chat(gateway, theirs.key, 'own')).status).toBe(404);
    await setModelPolicy(bed.pool, { teamId: 'mine', userId: 'u', allowedModels: ['nothing'] });
    await eventually(async () => (await chat(gateway, mine.key, 'own')).status === 403);
  });

  it('of a team cannot send the operator’s keys, or requests, where the operator has not said so', async () => {
    const env = { OPENAI_API_KEY: 'sk-operator', OTHER: 'x', LONGHAUL_GATEWAY_HOSTS: 'models.example' };
    const gateway = await withRoutes([], {}, env);
    const { key } = await newKey('mine');
    const refusals: [string, object, RegExp][] = [
      ['host', compatible(one), /may not go to 127\.0\.0\.1/],
      ['variable', compatible(one, { base_url: 'http://models.example', api_key: 'env:OTHER' }), /OTHER is not among/],
      [
        'key',
        compatible(one, { base_url: 'http://models.example', api_key: 'env:OPENAI_API_KEY' }),
        /may not be sent to models\.example/,
      ],
    ];
    for (const [name, deployment, message] of refusals) {
      await insertModelRoute(bed.pool, { teamId: 'mine', userId: 'u', name, spec: route(deployment) });
      const response = await eventually(async () => {
        const answer = await chat(gateway, key, name);
        return answer.status === 404 ? undefined : answer;
      });
      expect(response.status).toBe(502);
      expect((await errorOf(response)).message).toMatch(message);
    }
    expect(one.requests).toEqual([]);
  });

  it('that became bad changes nothing but what the gateway says of itself', { timeout: 60_000 }, async () => {
    const gateway = await withRoutes([{ name: 'fast', deployments: [compatible(one)] }]);
    const { key } = await newKey();
    expect((await chat(gateway, key, 'fast')).status).toBe(200);
    expect(gateway.problems()).toEqual([]);
    await writeFile(
      file,
      JSON.stringify({ routes: [{ name: 'fast', deployments: [{ ...compatible(one), api_key: 'sk-literal' }] }] }),
    );
    const [problem] = await eventually(() => (gateway.problems().length > 0 ? gateway.problems() : undefined));
    expect(problem).toContain('routes.0.deployments.0.api_key');
    expect(problem).not.toContain('sk-literal');
    expect((await chat(gateway, key, 'fast')).status).toBe(200);
    await writeFile(file, JSON.stringify({ routes: [{ name: 'slow', deployments: [compatible(one)] }] }));
    await eventually(() => gateway.problems().length === 0);
    expect((await chat(gateway, key, 'slow')).status).toBe(200);
    expect((await chat(gateway, key, 'fast')).status).toBe(404);
  });
});
