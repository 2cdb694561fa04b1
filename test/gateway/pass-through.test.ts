import { randomUUID } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import Anthropic, { APIError } from '@anthropic-ai/sdk';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
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

const ANTHROPIC_KEY = 'sk-ant-provider-secret';
const OPENAI_KEY = 'sk-openai-provider-secret';

let bed: TestBed;
let gateway: RunningGateway;
let anthropic: Upstream;
let openai: Upstream;
let key: string;
/** Of this test only: rows of an earlier test may still be on their way. */
let userId: string;

beforeAll(async () => {
  [bed, anthropic, openai] = await Promise.all([openTestBed(), startUpstream(), startUpstream()]);
  gateway = await startGateway(
    bed.pool,
    {
      ANTHROPIC_API_KEY: ANTHROPIC_KEY,
      ANTHROPIC_BASE_URL: anthropic.url,
      OPENAI_API_KEY: OPENAI_KEY,
      OPENAI_BASE_URL: `${openai.url}/v1`,
    },
    { timeouts: { firstByteMs: 400, idleMs: 400, totalMs: 5_000 } },
  );
});
afterAll(async () => {
  await gateway.close();
  await Promise.all([anthropic.close(), openai.close()]);
  await bed.close();
});
beforeEach(async () => {
  await bed.pool.query('TRUNCATE ledger, model_calls');
  userId = randomUUID();
  key = await mintKey(bed.pool, { userId });
  anthropic.requests.length = 0;
  openai.requests.length = 0;
});

function oneRow(): Promise<LedgerRow> {
  return eventually(async () => {
    const rows = (await ledgerRows(bed.pool)).filter((row) => row['user_id'] === userId);
    expect(rows.length).toBeLessThan(2);
    return rows[0];
  });
}

const MESSAGES_EVENTS = [
  'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"usage":{"input_tokens":10,"cache_creation_input_tokens":30,"cache_read_input_tokens":20,"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"output_tokens":1}}}\n\n',
  'event: ping\ndata: {"type": "ping"}\n\n',
  'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
  'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a \\"usage\\": 1 é"}}\n\n',
  'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":40}}\n\n',
  'event: message_stop\ndata: {"type":"message_stop"}\n\n',
].join('');
const SSE = { 'content-type': 'text/event-stream; charset=utf-8' };
const JSON_TYPE = { 'content-type': 'application/json' };

function claude(extra: object = {}, path = '/v1/messages'): Promise<Response> {
  const body = { max_tokens: 9, messages: [{ role: 'user', content: 'hi' }], model: 'claude-opus-5', ...extra };
  return post(`${gateway.url}${path}`, key, body, { 'anthropic-beta': 'b-1', cookie: 'a=b', 'x-evil': '1' });
}

describe('anthropic', () => {
  it.each([1, 7, 10_000])('passes a stream through byte by byte (pieces of %i bytes)', async (size) => {
    anthropic.answer = (_req, res) => {
      res.writeHead(200, { ...SSE, 'request-id': 'req_p', 'set-cookie': 'x=y', 'anthropic-organization-id': 'org' });
      const bytes = Buffer.from(MESSAGES_EVENTS);
      for (let at = 0; at < bytes.length; at += size) res.write(bytes.subarray(at, at + size));
      res.end();
    };
    const response = await claude({ stream: true }, '/v1/messages?beta=true&api_key=x');
    expect(await response.text()).toBe(MESSAGES_EVENTS);
    expect(response.headers.get('request-id')).toBe('req_p');
    expect(response.headers.get('set-cookie')).toBeNull();
    expect(response.headers.get('anthropic-organization-id')).toBeNull();
    // 10 x 5 + 20 x 0.5 + 10 x 6.25 + 20 x 10 + 40 x 25 = 1,322.5 micro-dollars
    expect(await oneRow()).toMatchObject({
      provider: 'anthropic',
      model: 'claude-opus-5',
      input_tokens: 10,
      cache_read_tokens: 20,
      cache_write_5m_tokens: 10,
      cache_write_1h_tokens: 20,
      output_tokens: 40,
      cost_micros: 1_323,
      usage_basis: 'reported',
      http_status: 200,
    });
    const [seen] = anthropic.requests;
    expect(seen?.path).toBe('/v1/messages?beta=true');
    expect(seen?.headers).toMatchObject({
      'x-api-key': ANTHROPIC_KEY,
      'anthropic-beta': 'b-1',
      'accept-encoding': 'identity',
    });
    expect(JSON.stringify(seen)).not.toContain(key);
    expect(seen?.headers).not.toHaveProperty('cookie');
    expect(seen?.headers).not.toHaveProperty('x-evil');
  });

  it('passes a whole answer through and counts its tokens', async () => {
    const answer =
      '{"id":"m", "type":"message","usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":5}}';
    anthropic.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end(answer);
    expect(await (await claude()).text()).toBe(answer);
    expect(await oneRow()).toMatchObject({
      input_tokens: 3,
      output_tokens: 4,
      cache_read_tokens: 5,
      usage_basis: 'reported',
    });
  });

  it('leaves every byte of the request but a model prefix', async () => {
    anthropic.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end('{"usage":{}}');
    const sent =
      '{ "messages" : [ {"role":"user","content":"\\u00e9 \\"model\\":\\"x\\" }"} ],\n "model" : "anthropic/claude-opus-5" , "max_tokens":1 }';
    await (await post(`${gateway.url}/v1/messages`, key, sent)).text();
    expect(anthropic.requests[0]?.body).toBe(sent.replace('anthropic/', ''));
  });

  it('passes count_tokens through without a ledger row', async () => {
    anthropic.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end('{"input_tokens":12}');
    expect(await (await claude({}, '/v1/messages/count_tokens')).json()).toEqual({ input_tokens: 12 });
    expect(anthropic.requests[0]?.path).toBe('/v1/messages/count_tokens');
    await gatewayIsQuiet();
    expect((await ledgerRows(bed.pool)).filter((row) => row['user_id'] === userId)).toEqual([]);
  });

  it.each([
    [400, { type: 'invalid_request_error', message: 'bad field' }, 'provider_rejected'],
    [404, { type: 'not_found_error', message: 'model: x' }, 'model_not_found'],
    [413, { type: 'request_too_large', message: 'too large' }, 'provider_rejected'],
    [429, { type: 'rate_limit_error', message: 'slow down' }, 'provider_rate_limited'],
    [500, { type: 'api_error', message: 'oops' }, 'provider_unavailable'],
    [529, { type: 'overloaded_error', message: 'busy' }, 'provider_unavailable'],
  ])('gives a provider %i to the caller as it is', async (status, error, code) => {
    const said = `{ "type":"error", "error":${JSON.stringify(error)} }`;
    anthropic.answer = (_req, res) => res.writeHead(status, { ...JSON_TYPE, 'retry-after': '7' }).end(said);
    const response = await claude();
    expect(response.status).toBe(status);
    expect(response.headers.get('retry-after')).toBe('7');
    expect(response.headers.get('x-longhaul-error')).toBe(code);
    expect(await response.text()).toBe(said);
    const nothing = { output_tokens: 0, usage_basis: 'none', cost_micros: 0 };
    expect(await oneRow()).toMatchObject({ error: code, http_status: status, ...nothing });
  });

  it.each([401, 402, 403])('keeps what a provider says about our own key to itself (%i)', async (status) => {
    const error = { type: 'authentication_error', message: `bad key ${ANTHROPIC_KEY}` };
    anthropic.answer = (_req, res) => res.writeHead(status, JSON_TYPE).end(JSON.stringify({ type: 'error', error }));
    const response = await claude();
    const text = await response.text();
    expect(response.status).toBe(502);
    expect(text).not.toContain(ANTHROPIC_KEY);
    expect(JSON.parse(text)).toMatchObject({ type: 'error', error: { code: 'provider_auth' } });
    expect(await oneRow()).toMatchObject({ error: 'provider_auth', http_status: 502 });
  });

  it('reports a cut stream in the stream, keeping what was reported for the ledger', async () => {
    anthropic.answer = (_req, res) => {
      res.writeHead(200, SSE);
      res.write(MESSAGES_EVENTS.slice(0, MESSAGES_EVENTS.indexOf('event: message_delta')), () => res.destroy());
    };
    const client = new Anthropic({ baseURL: gateway.url, apiKey: key, maxRetries: 0 });
    const failure = await client.messages
      .stream({ model: 'claude-opus-5', max_tokens: 9, messages: [{ role: 'user', content: 'hi' }] })
      .finalMessage()
      .catch((error: unknown) => error);
    if (!(failure instanceof APIError)) throw new Error('no APIError');
    expect(JSON.stringify(failure.error)).toContain('provider_unavailable');
    expect(await oneRow()).toMatchObject({ input_tokens: 10, usage_basis: 'estimated', error: 'provider_unavailable' });
  });

  it('passes the error a provider puts into its stream and books the call as failed', async () => {
    const said = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n';
    anthropic.answer = (_req, res) => res.writeHead(200, SSE).end(said);
    expect(await (await claude({ stream: true })).text()).toBe(said);
    expect(await oneRow()).toMatchObject({ error: 'provider_unavailable' });
  });

  it('gives up on a provider that says nothing', async () => {
    anthropic.answer = () => undefined;
    const response = await claude({ stream: true });
    expect(response.status).toBe(504);
    expect((await errorOf(response)).code).toBe('provider_timeout');
  });

  it('gives up on a provider that falls silent', async () => {
    anthropic.answer = (_req, res) => res.writeHead(200, SSE).write('event: ping\ndata: {"type":"ping"}\n\n');
    expect(await (await claude({ stream: true })).text()).toContain('"code":"provider_timeout"');
  });

  it('answers 529 when the provider cannot be reached', async () => {
    const lost = await startGateway(bed.pool, { ANTHROPIC_BASE_URL: 'http://127.0.0.1:1', ANTHROPIC_API_KEY: 'x' });
    try {
      const response = await post(`${lost.url}/v1/messages`, key, { model: 'claude-opus-5', messages: [] });
      expect(response.status).toBe(529);
      expect((await errorOf(response)).code).toBe('provider_unavailable');
    } finally {
      await lost.close();
    }
  });

  it('ends the call at the provider when the caller of a plain call goes away', async () => {
    const providerSawEnd = new Promise<void>((resolve) => {
      anthropic.answer = (_req, res) => {
        res.on('close', resolve);
        res.writeHead(200, SSE).write(MESSAGES_EVENTS.slice(0, 400));
      };
    });
    await new Promise<void>((resolve) => {
      const req = httpRequest(`${gateway.url}/v1/messages`, { method: 'POST', headers: { 'x-api-key': key } }, (res) =>
        res.once('data', () => {
          req.destroy();
          resolve();
        }),
      );
      req.on('error', () => undefined);
      req.end(JSON.stringify({ model: 'claude-opus-5', stream: true, messages: [] }));
    });
    await providerSawEnd;
    expect(await oneRow()).toMatchObject({ error: 'cancelled' });
  });

  it('waits for a slow reader instead of keeping the answer in memory', async () => {
    const piece = Buffer.alloc(64 * 1024, 0x20);
    const total = 600;
    let written = 0;
    anthropic.answer = (_req, res) => {
      res.writeHead(200, JSON_TYPE);
      const pump = (): void => {
        while (written < total) {
          written += 1;
          if (!res.write(piece)) return void res.once('drain', pump);
        }
        res.end('{"usage":{}}');
      };
      pump();
    };
    const response = await claude();
    const reader = response.body?.getReader();
    await reader?.read();
    let before = -1;
    await eventually(async () => {
      const isStill = written === before;
      before = written;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return isStill;
    });
    expect(written).toBeLessThan(total);
    await reader?.cancel();
    expect(await oneRow()).toMatchObject({ error: 'cancelled' });
  });
});

function chunk(value: object): string {
  return `data: ${JSON.stringify({ id: 'c', usage: null, ...value })}\n\n`;
}

describe('openai', () => {
  const CHAT_EVENTS = [
    chunk({ choices: [{ delta: { content: 'hi' } }] }),
    chunk({ choices: [{ delta: {}, finish_reason: 'stop' }] }),
    chunk({
      choices: [],
      usage: {
        prompt_tokens: 100,
        completion_tokens: 7,
        prompt_tokens_details: { cached_tokens: 60 },
        completion_tokens_details: { reasoning_tokens: 3 },
      },
    }),
    'data: [DONE]\n\n',
  ].join('');

  it('passes a chat stream through, asking for the usage', async () => {
    openai.answer = (_req, res) => res.writeHead(200, SSE).end(CHAT_EVENTS);
    const sent =
      '{"model":"openai/gpt-5","stream":true,"messages":[{"role":"user","content":"\\"stream_options\\":{}"}]}';
    const response = await post(`${gateway.url}/v1/chat/completions`, key, sent);
    // What the gateway asked for is its own affair.
    const shown = CHAT_EVENTS.replace(/data: [^\n]*"prompt_tokens"[^\n]*\n\n/, '').replaceAll(',"usage":null', '');
    expect(await response.text()).toBe(shown);
    const [seen] = openai.requests;
    expect(seen?.path).toBe('/v1/chat/completions');
    expect(seen?.headers.authorization).toBe(`Bearer ${OPENAI_KEY}`);
    expect(JSON.parse(seen?.body ?? '')).toMatchObject({ model: 'gpt-5', stream_options: { include_usage: true } });
    // 40 x 1.25 + 60 x 0.125 + 7 x 10 = 127.5 micro-dollars
    expect(await oneRow()).toMatchObject({
      provider: 'openai',
      protocol: 'chat',
      model: 'gpt-5',
      input_tokens: 40,
      cache_read_tokens: 60,
      output_tokens: 7,
      reasoning_tokens: 3,
      cost_micros: 128,
    });
  });

  it('keeps stream options the caller has', async () => {
    openai.answer = (_req, res) => res.writeHead(200, SSE).end(CHAT_EVENTS);
    await (
      await post(`${gateway.url}/v1/chat/completions`, key, {
        model: 'gpt-5',
        stream: true,
        stream_options: { x: 1 },
        messages: [],
      })
    ).text();
    expect(JSON.parse(openai.requests[0]?.body ?? '')).toMatchObject({ stream_options: { x: 1, include_usage: true } });
  });

  it('passes responses through and reads their usage from the last event', async () => {
    const events = [
      'event: response.created\ndata: {"type":"response.created","response":{"usage":null}}\n\n',
      'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":50,"input_tokens_details":{"cached_tokens":10,"cache_write_tokens":20},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2}}}}\n\n',
    ].join('');
    openai.answer = (_req, res) => res.writeHead(200, SSE).end(events);
    const response = await post(`${gateway.url}/v1/responses`, key, { model: 'gpt-5', stream: true, input: 'hi' });
    expect(await response.text()).toBe(events);
    expect(openai.requests[0]?.path).toBe('/v1/responses');
    expect(await oneRow()).toMatchObject({
      protocol: 'responses',
      input_tokens: 20,
      cache_read_tokens: 10,
      cache_write_5m_tokens: 20,
      output_tokens: 5,
      reasoning_tokens: 2,
    });
  });

  it('sends models no rule knows to a compatible server; they have no price', async () => {
    openai.answer = (_req, res) =>
      res.writeHead(200, JSON_TYPE).end('{"usage":{"prompt_tokens":1,"completion_tokens":2}}');
    await (await post(`${gateway.url}/v1/chat/completions`, key, { model: 'qwen3:8b', messages: [] })).text();
    expect(await oneRow()).toMatchObject({ model: 'qwen3:8b', input_tokens: 1, output_tokens: 2, cost_micros: null });
  });

  it('refuses a Claude model in its own error shape', async () => {
    const response = await post(`${gateway.url}/v1/chat/completions`, key, { model: 'claude-opus-5', messages: [] });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ error: { code: 'model_not_found', param: 'model' } });
  });
});

describe('recorded calls to a provider', () => {
  it('pays once, and books a cut attempt with tokens into the same row', async () => {
    const sessionId = await createSession(bed.pool);
    const own = await mintKey(bed.pool, { sessionId, userId });
    const ask = (): Promise<Response> =>
      post(
        `${gateway.url}/v1/messages`,
        own,
        { model: 'claude-opus-5', stream: true, messages: [] },
        { 'idempotency-key': `${sessionId}/3/2` },
      );
    anthropic.answer = (_req, res) => {
      res.writeHead(200, SSE);
      res.write(MESSAGES_EVENTS.slice(0, MESSAGES_EVENTS.indexOf('event: ping')), () => res.destroy());
    };
    expect(await (await ask()).text()).toContain('event: error');
    anthropic.answer = (_req, res) => res.writeHead(200, SSE).end(MESSAGES_EVENTS);
    expect(await (await ask()).text()).toBe(MESSAGES_EVENTS);
    expect(await (await ask()).text()).toBe(MESSAGES_EVENTS);
    expect(anthropic.requests).toHaveLength(2);
    expect(await oneRow()).toMatchObject({
      call_key: `${sessionId}/3/2`,
      turn: 3,
      step: 2,
      input_tokens: 20,
      output_tokens: 41,
      usage_basis: 'estimated',
      error: null,
    });
  });

  it('does not take a page of some proxy for an answer', async () => {
    const sessionId = await createSession(bed.pool);
    const own = await mintKey(bed.pool, { sessionId, userId });
    anthropic.answer = (_req, res) => res.writeHead(200, { 'content-type': 'text/html' }).end('<html>');
    const response = await post(
      `${gateway.url}/v1/messages`,
      own,
      { model: 'claude-opus-5', messages: [] },
      { 'idempotency-key': `${sessionId}/0/0` },
    );
    expect(response.status).toBe(529);
    expect((await bed.pool.query('SELECT 1 FROM model_calls')).rows).toEqual([]);
  });
});

/** A second call through the ledger writer: when its row is there, those of earlier calls would be, too. */
async function gatewayIsQuiet(): Promise<void> {
  anthropic.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end('{"usage":{"input_tokens":1,"output_tokens":1}}');
  await (await claude()).text();
  await eventually(async () => (await ledgerRows(bed.pool)).some((row) => row['output_tokens'] === 1));
  await bed.pool.query('DELETE FROM ledger WHERE output_tokens = 1');
}
