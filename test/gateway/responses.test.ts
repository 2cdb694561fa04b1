import OpenAI, { NotFoundError } from 'openai';
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createApiKey } from '../../db/queries/api-keys.ts';
import {
  createSession,
  errorOf,
  eventually,
  ledgerRows,
  mintKey,
  openTestBed,
  post,
  scriptText,
  startGateway,
  startUpstream,
  type LedgerRow,
  type RunningGateway,
  type TestBed,
  type Upstream,
} from './support.ts';

let bed: TestBed;
let upstream: Upstream;
let gateway: RunningGateway;
/** Another process, as far as what it remembers goes. */
let other: RunningGateway;
let key: string;
let userId: string;

beforeAll(async () => {
  [bed, upstream] = await Promise.all([openTestBed(), startUpstream()]);
  const env = { OPENAI_BASE_URL: `${upstream.url}/v1`, OPENAI_API_KEY: 'provider-key' };
  [gateway, other] = await Promise.all([startGateway(bed.pool, env), startGateway(bed.pool, env)]);
});
afterAll(async () => {
  await Promise.all([gateway.close(), other.close()]);
  await upstream.close();
  await bed.close();
});
beforeEach(async () => {
  userId = randomUUID();
  ({ key } = await createApiKey(bed.pool, { name: 'k', userId, teamId: 'team' }));
  upstream.requests.length = 0;
});

function sdk(apiKey = key, { url } = gateway): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
}

async function ownRows(): Promise<LedgerRow[]> {
  return (await ledgerRows(bed.pool)).filter((row) => row['user_id'] === userId);
}

const ask = (steps: object[]) => ({ model: 'scripted', input: scriptText(steps, randomUUID()) });

describe('a stored response', () => {
  it('is there to be read, listed and deleted', async () => {
    const made = await sdk().responses.create(ask([{ text: 'kept' }]));
    const read = await sdk().responses.retrieve(made.id);
    expect({ id: read.id, text: read.output_text, status: read.status }).toEqual({
      id: made.id,
      text: 'kept',
      status: 'completed',
    });
    expect((await sdk().responses.inputItems.list(made.id)).data).toHaveLength(1);
    await sdk().responses.delete(made.id);
    await expect(sdk().responses.retrieve(made.id)).rejects.toBeInstanceOf(NotFoundError);
    await eventually(async () => (await ownRows()).length === 1);
  });

  it('is found through another gateway', async () => {
    const made = await sdk().responses.create({ ...ask([{ text: 'kept' }]), model: 'scripted' });
    const row = await eventually(async () => {
      const { rows } = await bed.pool.query('SELECT * FROM gateway_responses WHERE response_id = $1', [made.id]);
      return rows[0] as Record<string, unknown> | undefined;
    });
    expect(row).toMatchObject({ team_id: 'team', provider: 'scripted', state: 'settled' });
    // Its scripted model has another memory: that it asks its provider shows that it knows whose the answer is.
    const error = await sdk(key, other)
      .responses.retrieve(made.id)
      .catch((reason: unknown) => reason);
    expect((error as NotFoundError).message).toContain(`Response with id '${made.id}' not found`);
  });

  it('does not exist for another team, nor for the key of another session', async () => {
    const [mine, others] = [await createSession(bed.pool), await createSession(bed.pool)];
    const sessionKey = await mintKey(bed.pool, { sessionId: mine, userId });
    const made = await sdk(sessionKey).responses.create(ask([{ text: 'secret' }]));
    expect((await sdk(sessionKey).responses.retrieve(made.id)).output_text).toBe('secret');
    const foreign = await createApiKey(bed.pool, { name: 'k', userId: 'eve', teamId: 'other-team' });
    const refused = [foreign.key, await mintKey(bed.pool, { sessionId: others }), await mintKey(bed.pool)];
    for (const stranger of refused) {
      const client = sdk(stranger);
      await expect(client.responses.retrieve(made.id)).rejects.toBeInstanceOf(NotFoundError);
      await expect(client.responses.cancel(made.id)).rejects.toBeInstanceOf(NotFoundError);
      await expect(client.responses.delete(made.id)).rejects.toBeInstanceOf(NotFoundError);
      const goingOn = client.responses.create({ ...ask([{ text: 'x' }]), previous_response_id: made.id });
      await expect(goingOn).rejects.toMatchObject({ status: 404, param: 'previous_response_id' });
    }
    const next = await sdk(sessionKey).responses.create({ ...ask([{ text: 'on' }]), previous_response_id: made.id });
    expect(next.output_text).toBe('on');
  });

  it('is not kept when the caller does not want that', async () => {
    const made = await sdk().responses.create({ ...ask([{ text: 'gone' }]), store: false });
    await expect(sdk().responses.retrieve(made.id)).rejects.toBeInstanceOf(NotFoundError);
  });

  it.each(['resp_', 'a%2F..%2Fb', 'x'.repeat(600)])('with the id %s is refused', async (id) => {
    const response = await fetch(`${gateway.url}/v1/responses/${id}`, { headers: { 'x-api-key': key } });
    expect([404, 418]).toContain(response.status);
    expect(upstream.requests).toEqual([]);
  });
});

describe('a background response', () => {
  it('is billed once, when it is first seen to have ended', async () => {
    const made = await sdk().responses.create({
      ...ask([{ text: 'done at last', usage: { input: 30, output: 5 } }]),
      background: true,
    });
    expect(made.status).toMatch(/queued|in_progress/);
    await eventually(async () => (await sdk().responses.retrieve(made.id)).status === 'completed');
    await Promise.all(Array.from({ length: 5 }, () => sdk().responses.retrieve(made.id)));
    const rows = await ownRows();
    expect(rows).toMatchObject([
      { protocol: 'responses', model: 'scripted', input_tokens: 30, output_tokens: 5, usage_basis: 'reported' },
    ]);
    expect(rows[0]?.['call_key']).toBe(`response/team/${made.id}`);
  });

  it('is billed also when nobody asks for it', async () => {
    await sdk().responses.create({ ...ask([{ text: 'x', chunkMs: 5, usage: { output: 9 } }]), background: true });
    const row = await eventually(async () => (await ownRows())[0]);
    expect(row).toMatchObject({ output_tokens: 9, usage_basis: 'reported' });
  });

  it('goes on when its caller has left, and gives the events the caller has not seen', async () => {
    const script = ask([{ text: 'abcdef', chunks: 6, chunkMs: 30 }]);
    const stream = await sdk().responses.create({ ...script, background: true, stream: true });
    const seen: { type: string; sequence_number: number }[] = [];
    let id = '';
    for await (const event of stream) {
      seen.push({ type: event.type, sequence_number: event.sequence_number });
      if (event.type === 'response.created') id = event.response.id;
      if (event.type === 'response.output_text.delta') break;
    }
    const after = seen.at(-1)?.sequence_number ?? -1;
    const rest = await sdk().responses.retrieve(id, { stream: true, starting_after: after });
    let text = '';
    for await (const event of rest) {
      seen.push({ type: event.type, sequence_number: event.sequence_number });
      if (event.type === 'response.output_text.done') text = event.text;
    }
    expect(text).toBe('abcdef');
    expect(seen.map((event) => event.sequence_number)).toEqual(seen.map((_event, index) => index));
    expect(seen.at(-1)?.type).toBe('response.completed');
    expect(await eventually(async () => (await ownRows())[0])).toMatchObject({ usage_basis: 'reported', error: null });
    expect(await ownRows()).toHaveLength(1);
  });

  it('ends when it is cancelled, and cannot be deleted before that', async () => {
    const made = await sdk().responses.create({ ...ask([{ text: 'x', delayMs: 600_000 }]), background: true });
    await expect(sdk().responses.delete(made.id)).rejects.toMatchObject({ status: 400 });
    expect((await sdk().responses.cancel(made.id)).status).toBe('cancelled');
    expect(await ownRows()).toMatchObject([{ error: 'cancelled', usage_basis: 'none', cost_micros: 0 }]);
    await sdk().responses.delete(made.id);
    await expect(sdk().responses.retrieve(made.id)).rejects.toBeInstanceOf(NotFoundError);
  });

  it('takes no Idempotency-Key', async () => {
    const body = { ...ask([{ text: 'x' }]), background: true };
    const response = await post(`${gateway.url}/v1/responses`, key, body, { 'idempotency-key': 'k1' });
    expect(response.status).toBe(400);
    expect((await errorOf(response)).message).toContain('background');
  });

  it('that was never taken has a row of its own', async () => {
    upstream.answer = (_req, res) => res.writeHead(429, { 'content-type': 'application/json' }).end('{"error":{}}');
    const body = { model: 'gpt-5', input: 'x', background: true };
    expect((await post(`${gateway.url}/v1/responses`, key, body)).status).toBe(429);
    expect(await eventually(async () => (await ownRows())[0])).toMatchObject({ error: 'provider_rate_limited' });
  });
});

describe('at the provider', () => {
  const id = 'resp_68a1';
  const whole = (status: string, usage: unknown): string =>
    `{\n  "id": "${id}",\n  "object": "response",\n  "status": "${status}",\n  "created_at": 100,\n  "completed_at": 102,\n  "usage": ${JSON.stringify(usage)}\n}`;
  const usage = { input_tokens: 7, output_tokens: 3, total_tokens: 10 };

  it('is asked with its own paths and the parameters of the protocol, and its bytes come back', async () => {
    const json = { 'content-type': 'application/json' };
    upstream.answer = (_req, res) => res.writeHead(200, json).end(whole('in_progress', null));
    const body = { model: 'gpt-5', input: 'x', background: true };
    expect(await (await post(`${gateway.url}/v1/responses`, key, body)).text()).toBe(whole('in_progress', null));
    const headers = { authorization: `Bearer ${key}`, cookie: 'a=b' };
    const get = (path: string): Promise<Response> => fetch(`${gateway.url}${path}`, { headers });
    expect(await (await get(`/v1/responses/${id}?include[]=a&api_key=x`)).text()).toBe(whole('in_progress', null));
    const events = 'event: response.output_text.delta\ndata: {"type":"response.output_text.delta"}\n\n';
    const last = `event: response.completed\ndata: {"type":"response.completed","response":${JSON.stringify({ id, status: 'completed', usage })}}\n\n`;
    upstream.answer = (_req, res) => res.writeHead(200, { 'content-type': 'text/event-stream' }).end(events + last);
    const stream = await get(`/v1/responses/${id}?stream=true&starting_after=4`);
    expect(await stream.text()).toBe(events + last);
    const row = await eventually(async () => (await ownRows())[0]);
    expect(row).toMatchObject({ input_tokens: 7, output_tokens: 3, usage_basis: 'reported', provider: 'openai' });
    const paths = upstream.requests.map(({ path }) => path);
    expect(paths).toContain(`/v1/responses/${id}?include%5B%5D=a`);
    expect(paths).toContain(`/v1/responses/${id}?stream=true&starting_after=4`);
    for (const request of upstream.requests) {
      expect(request.headers.authorization).toBe('Bearer provider-key');
      expect(request.headers).not.toHaveProperty('cookie');
    }
  });

  it('is billed by whichever gateway is left', async () => {
    upstream.answer = (_req, res) =>
      res.writeHead(200, { 'content-type': 'application/json' }).end(whole('queued', null));
    const env = { OPENAI_BASE_URL: `${upstream.url}/v1`, OPENAI_API_KEY: 'provider-key' };
    const team = randomUUID();
    const own = await createApiKey(bed.pool, { name: 'k', userId, teamId: team });
    const dying = await startGateway(bed.pool, env);
    await (await post(`${dying.url}/v1/responses`, own.key, { model: 'gpt-5', input: 'x', background: true })).text();
    await dying.close();
    upstream.answer = (_req, res) =>
      res.writeHead(200, { 'content-type': 'application/json' }).end(whole('completed', usage));
    expect(await eventually(async () => (await ownRows())[0])).toMatchObject({
      team_id: team,
      output_tokens: 3,
      latency_ms: 2_000,
    });
  });
});
