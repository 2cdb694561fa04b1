import type { Server } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { isAllReleased, listenAsProvider, makeBudget, windowOf, WIRES } from './budget-support.ts';
import {
  createSession,
  errorOf,
  eventually,
  mintKey,
  openTestBed,
  post,
  startGateway,
  stop,
  type RunningGateway,
  type TestBed,
} from './support.ts';

const PATIENCE = 60_000;

let bed: TestBed;
let gateway: RunningGateway;
let provider: { url: string; server: Server };
let bodies: Record<string, unknown>[] = [];
let outputTokens = 100;

beforeAll(async () => {
  bed = await openTestBed();
  provider = await listenAsProvider((req, res, body) => {
    bodies.push(body);
    const wire = req.url?.includes('chat') === true ? WIRES.chat : WIRES.messages;
    res.end(JSON.stringify(wire.whole(100, outputTokens)));
  });
  gateway = await startGateway(bed.pool, { ANTHROPIC_BASE_URL: provider.url, OPENAI_BASE_URL: `${provider.url}/v1` });
});
beforeEach(() => {
  bodies = [];
  outputTokens = 100;
});
afterAll(async () => {
  await eventually(() => isAllReleased(bed.pool));
  await gateway.close();
  await stop(provider.server);
  await bed.close();
});

const messages = (key: string, body: string | object): Promise<Response> =>
  post(`${gateway.url}/v1/messages`, key, body);
const BODY = { model: 'claude-opus-5', max_tokens: 100, messages: [] };

describe('an absurd output limit', { timeout: PATIENCE }, () => {
  it.each([1e99, Number.MAX_VALUE, 1e16])('of %d does not stop the calls of others', async (limit) => {
    const mine = await createSession(bed.pool, { budgetCents: '100' });
    const theirs = await createSession(bed.pool, { budgetCents: '100' });
    const [attacker, victim] = [
      await mintKey(bed.pool, { sessionId: mine }),
      await mintKey(bed.pool, { sessionId: theirs }),
    ];
    const [absurd, plain] = await Promise.all([
      messages(attacker, { ...BODY, max_tokens: limit, stream: true }),
      messages(victim, BODY),
    ]);
    expect([plain.status, await plain.text()]).toEqual([200, expect.anything()]);
    expect(absurd.status).toBeLessThan(500);
    const whole = await messages(attacker, { ...BODY, max_tokens: limit });
    expect([whole.status, (await errorOf(whole)).code]).toEqual([402, 'budget_exceeded']);
  });
});

it(
  'refuses nobody whose pool is met for the first time while others ask for money',
  { timeout: PATIENCE },
  async () => {
    const sessions = await Promise.all(
      Array.from({ length: 40 }, () => createSession(bed.pool, { budgetCents: '100' })),
    );
    const keys = await Promise.all(sessions.map((sessionId) => mintKey(bed.pool, { sessionId })));
    const answers = await Promise.all(keys.map((key) => messages(key, BODY)));
    expect(answers.map(({ status }) => status)).toEqual(keys.map(() => 200));
    await Promise.all(answers.map((answer) => answer.text()));
  },
);

it.each(['claude-\\u0000', 'claude-\\ud800', 'claude-\\n'])(
  'a model id that no row can hold (%s) is refused',
  async (id) => {
    const answer = await messages(await mintKey(bed.pool), `{"model":"${id}","max_tokens":9,"messages":[]}`);
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { code: 'invalid_request', field: 'model' } });
    expect(bodies).toEqual([]);
  },
);

describe('a name in another case', { timeout: PATIENCE }, () => {
  it.each(['Model', 'max_to\u212aens', '\u017ftream'])('(%s) is refused and named', async (name) => {
    const answer = await messages(await mintKey(bed.pool), { ...BODY, [name]: 1 });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { code: 'invalid_request', field: name } });
    expect(bodies).toEqual([]);
  });

  it('that says nothing to the gateway goes through', async () => {
    expect((await messages(await mintKey(bed.pool), { ...BODY, 'X-Größe': 1, Temperature: 1 })).status).toBe(200);
    expect(bodies).toMatchObject([{ 'X-Größe': 1, Temperature: 1 }]);
  });
});

describe('what a body asks for', { timeout: PATIENCE }, () => {
  it('is held for every choice a chat call wants', async () => {
    const budget = await makeBudget(bed.pool, ['user', 'choosy'], { hardLimitMicros: 20_000 });
    const key = await mintKey(bed.pool, { userId: 'choosy' });
    const chat = { model: 'gpt-5.5', max_completion_tokens: 100, messages: [] };
    outputTokens = 12_800;
    const many = await post(`${gateway.url}/v1/chat/completions`, key, { ...chat, n: 128 });
    expect([many.status, bodies.length]).toEqual([402, 0]);
    outputTokens = 100;
    expect((await post(`${gateway.url}/v1/chat/completions`, key, { ...chat, n: 1 })).status).toBe(200);
    await eventually(async () => (await windowOf(bed.pool, budget.id)).spent > 0);
  });

  it.each([
    [
      '{"model":"claude-opus-5","Model":"claude-sonnet-5","max_tokens":9,"messages":[]}',
      'a server that reads names in any case',
    ],
    ['{"model":"claude-opus-5","MODE\\u006c":"claude-sonnet-5","max_tokens":9,"messages":[]}', 'the same, escaped'],
    ['{"mod\\u0065l":"claude-sonnet-5","max_tokens":9,"messages":[]}', 'an escaped name'],
    [
      '{"model":"claude-opus-5","max_tokens":9,"messages":[],"mod\\u0065l":"claude-sonnet-5"}',
      'an escaped second name',
    ],
    ['{"model":"claude-opus-5","model":"claude-sonnet-5","max_tokens":9,"messages":[]}', 'two names, the last'],
    ['{"model":"claude-sonnet-5","model":"claude-opus-5","max_tokens":9,"messages":[]}', 'two names, the first'],
  ])('goes to no model the key may not call: %s (%s)', async (body) => {
    const key = await mintKey(bed.pool, { allowedModels: ['claude-opus-5'] });
    const answer = await messages(key, body);
    await answer.text();
    const models = bodies.flatMap((sent) => Object.entries(sent).filter(([name]) => name.toLowerCase() === 'model'));
    expect(models.filter(([, model]) => model !== 'claude-opus-5')).toEqual([]);
    expect(answer.status === 200 ? models.length : 1).toBe(1);
  });

  it.each([
    '\uFEFF{"model":"claude-opus-5","max_tokens":9,"messages":[]}',
    `{"model":"claude-opus-5","mod\\u0065l":"claude-opus-5","a":${'['.repeat(200_000)}${']'.repeat(200_000)}}`,
    `{"model":"claude-opus-5","model":"claude-opus-5","a":${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}}`,
  ])('is refused as the caller’s mistake where it cannot be read', async (body) => {
    const answer = await messages(await mintKey(bed.pool), body);
    expect([200, 400]).toContain(answer.status);
    await answer.text();
  });
});

describe('a body that is nested too deeply to be written anew', { timeout: PATIENCE }, () => {
  const deep = '['.repeat(200_000) + ']'.repeat(200_000);

  it.each([{}, { 'idempotency-key': 'deep' }])('is refused, and holds no money, slot or key (%j)', async (headers) => {
    const sessionId = await createSession(bed.pool, { budgetCents: '1000' });
    const key = await mintKey(bed.pool, { sessionId, maxParallel: 1 });
    const ask = (extra: string): Promise<Response> => {
      const body = `{"model":"x","model":"openai/gpt-5.5","max_tokens":9,"messages":[]${extra}}`;
      return post(`${gateway.url}/v1/chat/completions`, key, body, headers);
    };
    const refused = await ask(`,"a":${deep}`);
    expect([refused.status, (await errorOf(refused)).code]).toEqual([400, 'invalid_json']);
    await eventually(() => isAllReleased(bed.pool));
    const taken = await ask('');
    expect([taken.status, await taken.text()]).toEqual([200, expect.anything()]);
  });

  it('goes to the provider as it is where breakpoints would be placed', async () => {
    const cache = { prompt_caching: { type: 'auto', ttl: '5m' } } as const;
    const { key } = await createApiKey(bed.pool, { name: 'k', userId: 'u', teamId: 't', cache });
    const body = `{"model":"claude-opus-5","max_tokens":9,"system":"s","messages":[{"role":"user","content":"x"}],"a":${deep}}`;
    const answer = await messages(key, body);
    expect([answer.status, await answer.text()]).toEqual([200, expect.anything()]);
  });
});
