import Anthropic from '@anthropic-ai/sdk';
import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readGatewayProcessConfig } from '../../gateway/config.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { putSessionBudget } from '../../db/queries/budgets.ts';
import { revokeSessionKeys } from '../../db/queries/virtual-keys.ts';
import {
  createSession,
  errorOf,
  eventually,
  ledgerRows,
  messagesRequest,
  mintKey,
  openTestBed,
  post,
  scriptText,
  startGateway,
  type RunningGateway,
  type TestBed,
} from './support.ts';

let bed: TestBed;
let gateway: RunningGateway;

beforeAll(async () => {
  bed = await openTestBed();
  gateway = await startGateway(bed.pool, { OPENAI_BASE_URL: 'http://127.0.0.1:1' });
});
afterAll(async () => {
  await gateway.close();
  await bed.close();
});

const say = (key: string, text = 'hi', headers: Record<string, string> = {}): Promise<Response> =>
  post(`${gateway.url}/v1/messages`, key, messagesRequest(text), headers);

describe('keys', () => {
  it('wants one', async () => {
    const response = await fetch(`${gateway.url}/v1/messages`, { method: 'POST', body: '{}' });
    expect(response.status).toBe(401);
    expect(await errorOf(response)).toMatchObject({ type: 'authentication_error', code: 'missing_api_key' });
  });

  it.each(['lhv_unknown', 'lhk_unknown', 'whatever'])('does not know %s', async (key) => {
    const response = await say(key);
    expect(response.status).toBe(401);
    expect((await errorOf(response)).code).toBe('invalid_api_key');
  });

  it('takes an API key as bearer and as x-api-key', async () => {
    const { key } = await createApiKey(bed.pool, { name: 'k', userId: 'u', teamId: 't' });
    expect((await say(key)).status).toBe(200);
    const response = await fetch(`${gateway.url}/v1/models`, { headers: { 'x-api-key': key } });
    expect(response.status).toBe(200);
    const row = await eventually(async () => (await ledgerRows(bed.pool)).find((found) => found['user_id'] === 'u'));
    expect(row).toMatchObject({ team_id: 't', session_id: null, virtual_key_id: null });
    expect(row['call_key']).toBe(row['id']);
  });

  it('stores only a hash', async () => {
    const key = await mintKey(bed.pool);
    const rows = await bed.pool.query('SELECT row_to_json(k)::text AS text FROM virtual_keys k');
    expect(JSON.stringify(rows.rows)).not.toContain(key.slice(4));
  });

  it('refuses an expired one', async () => {
    expect((await say(await mintKey(bed.pool, { ttlMs: -1_000 }))).status).toBe(401);
  });

  it('lets go of a revoked one that was just used', async () => {
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    expect((await say(key)).status).toBe(200);
    expect(await revokeSessionKeys(bed.pool, sessionId)).toBe(1);
    expect(await revokeSessionKeys(bed.pool, sessionId)).toBe(0);
    await eventually(async () => (await say(key)).status === 401);
  });

  it('refuses those of a terminated session', async () => {
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    await bed.pool.query(`UPDATE sessions SET status = 'terminated', terminated_at = now() WHERE id = $1`, [sessionId]);
    expect((await say(key)).status).toBe(401);
  });

  it('keeps to the models of the key', async () => {
    const key = await mintKey(bed.pool, { allowedModels: ['claude-*', 'gpt-5'] });
    const response = await say(key);
    expect(response.status).toBe(403);
    expect((await errorOf(response)).code).toBe('model_not_allowed');
    const models = await (await fetch(`${gateway.url}/v1/models`, { headers: { 'x-api-key': key } })).json();
    expect((models as { data: { id: string }[] }).data.map((model) => model.id)).toEqual(['gpt-5']);
  });

  it('keeps to the parallel calls of the key, and gives them back', async () => {
    const key = await mintKey(bed.pool, { maxParallel: 1 });
    const slow = messagesRequest(scriptText([{ text: 'abc', chunks: 3, chunkMs: 60_000 }]), { stream: true });
    const controller = new AbortController();
    const first = await fetch(`${gateway.url}/v1/messages`, {
      method: 'POST',
      headers: { 'x-api-key': key },
      body: JSON.stringify(slow),
      signal: controller.signal,
    });
    expect(first.status).toBe(200);
    const second = await say(key);
    expect(second.status).toBe(429);
    expect(second.headers.get('retry-after')).toBe('1');
    expect((await errorOf(second)).code).toBe('too_many_parallel_calls');
    controller.abort();
    await first.text().catch(() => undefined);
    await eventually(async () => (await say(key)).status === 200);
  });
});

describe('bodies', () => {
  let key: string;
  beforeAll(async () => {
    key = await mintKey(bed.pool);
  });

  it.each([
    ['', 400, 'invalid_json'],
    ['{"model":', 400, 'invalid_json'],
    ['{"model":"scripted"', 400, 'invalid_json'],
    ['[1]', 400, 'invalid_json'],
    ['{"messages":[]}', 400, 'invalid_request'],
    ['{"model":7}', 400, 'invalid_request'],
    ['{"model":"no-such-model","messages":[]}', 404, 'model_not_found'],
  ])('%j is refused with %i %s', async (body, status, code) => {
    const response = await post(`${gateway.url}/v1/messages`, key, body);
    expect([response.status, (await errorOf(response)).code]).toEqual([status, code]);
  });

  it.each(['declared', 'chunked'])('refuses one that is too large (%s)', async (how) => {
    const size = LIMITS.gatewayBodyBytes + 1;
    const answer = await new Promise<{ status: number | undefined; text: string }>((resolve, reject) => {
      const headers = { 'x-api-key': key, ...(how === 'declared' ? { 'content-length': size } : {}) };
      const req = httpRequest(`${gateway.url}/v1/messages`, { method: 'POST', headers }, (res) => {
        let text = '';
        res.on('data', (chunk: Buffer) => {
          text += chunk.toString();
        });
        res.on('end', () => resolve({ status: res.statusCode, text }));
      });
      req.on('error', reject);
      req.end(Buffer.alloc(size, 0x20));
    });
    expect(answer.status).toBe(413);
    expect(answer.text).toContain('request_too_large');
  });

  it('knows its paths and methods', async () => {
    expect((await fetch(`${gateway.url}/v1/messages`)).status).toBe(405);
    expect((await fetch(`${gateway.url}/v1/agents`)).status).toBe(418);
    const plain = await startGateway(bed.pool, { LONGHAUL_SCRIPTED: '0' });
    try {
      expect((await fetch(`${plain.url}/scripted/calls?session=x`)).status).toBe(418);
      const response = await post(`${plain.url}/v1/messages`, key, messagesRequest('hi'));
      expect(response.status).toBe(404);
    } finally {
      await plain.close();
    }
  });

  it('lists models in a shape both vendors’ SDKs read', async () => {
    const page = await new Anthropic({ baseURL: gateway.url, apiKey: key }).models.list();
    expect(page.data.map((model) => model.id)).toContain('scripted');
    expect(page.data.map((model) => model.id)).not.toContain('claude-opus-5');
  });

  it('shows the counts of a session to its own key only', async () => {
    const response = await fetch(`${gateway.url}/scripted/calls?session=other`, { headers: { 'x-api-key': key } });
    expect(response.status).toBe(403);
  });
});

describe('budget', () => {
  it('stops a session that has spent it, before the provider is asked', async () => {
    const sessionId = await createSession(bed.pool, { budgetCents: '1' });
    const key = await mintKey(bed.pool, { sessionId });
    // 10,000 output tokens at the pretend price of 5 dollars a million are 5 cents.
    const body = messagesRequest(scriptText([{ text: 'x', usage: { input: 0, output: 10_000 } }]));
    const ask = (step: number): Promise<Response> =>
      post(`${gateway.url}/v1/messages`, key, body, { 'idempotency-key': `${sessionId}/0/${step}` });
    expect((await ask(0)).status).toBe(200);
    const refused = await ask(1);
    expect(refused.status).toBe(402);
    expect(refused.headers.get('x-should-retry')).toBe('false');
    expect(await errorOf(refused)).toMatchObject({ type: 'billing_error', code: 'budget_exceeded' });
    expect((await ask(0)).headers.get('x-longhaul-replayed')).toBe('true');
    const raised = { type: 'limit', max_list_cost: { amount: '100', currency: 'USD' } } as const;
    await putSessionBudget(bed.pool, { id: sessionId, teamId: 'team', createdBy: 'user' }, raised);
    expect((await ask(1)).status).toBe(200);
  });

  it('refuses a model without a price only where there is a budget', async () => {
    const [rich, bound] = [await createSession(bed.pool), await createSession(bed.pool, { budgetCents: '100' })];
    const call = async (sessionId: string): Promise<string> => {
      const key = await mintKey(bed.pool, { sessionId });
      const body = { model: 'llama', messages: [] };
      return (await errorOf(await post(`${gateway.url}/v1/chat/completions`, key, body))).code;
    };
    expect(await call(bound)).toBe('model_not_budgetable');
    expect(await call(rich)).toBe('provider_unavailable');
  });
});

describe('configuration', () => {
  const env = { DATABASE_URL: 'postgres://x' };

  it('does not bind an address others can reach unless told to', () => {
    const publicly = { ...env, LONGHAUL_GATEWAY_HOST: '0.0.0.0' };
    expect(() => readGatewayProcessConfig(publicly)).toThrow(/refusing to bind/);
    expect(readGatewayProcessConfig({ ...publicly, LONGHAUL_ALLOW_PUBLIC: '1' }).host).toBe('0.0.0.0');
    expect(readGatewayProcessConfig(env).host).toBe('127.0.0.1');
  });

  it('names a value that is no number', () => {
    expect(() => readGatewayProcessConfig({ ...env, LONGHAUL_GATEWAY_PORT: 'x' })).toThrow(/LONGHAUL_GATEWAY_PORT/);
    expect(() => readGatewayProcessConfig({})).toThrow(/DATABASE_URL/);
  });
});
