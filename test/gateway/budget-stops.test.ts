import Anthropic from '@anthropic-ai/sdk';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import OpenAI from 'openai';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Protocol } from '../../gateway/protocol.ts';
import { budgetIdOfSession, isAllReleased, listenAsProvider, makeBudget, windowOf, WIRES } from './budget-support.ts';
import {
  createSession,
  errorOf,
  eventually,
  ledgerRows,
  mintKey,
  openTestBed,
  post,
  startGateway,
  stop,
  type RunningGateway,
  type TestBed,
} from './support.ts';

let bed: TestBed;
let gateway: RunningGateway;
let provider: { url: string; server: Server };
let answer: (req: IncomingMessage, res: ServerResponse, body: Record<string, unknown>) => void;
let asked = 0;

beforeAll(async () => {
  bed = await openTestBed();
  provider = await listenAsProvider((req, res, body) => {
    asked += 1;
    answer(req, res, body);
  });
  gateway = await startGateway(bed.pool, {
    ANTHROPIC_BASE_URL: provider.url,
    OPENAI_BASE_URL: `${provider.url}/v1`,
  });
});
afterEach(async () => {
  await eventually(() => isAllReleased(bed.pool));
  asked = 0;
});
afterAll(async () => {
  await gateway.close();
  await stop(provider.server);
  await bed.close();
});

const PATIENCE = 60_000;
const TEXT = 'ten tokens of text, forty letters it is.';

/** Streams without an end until it is cut off; `closed` resolves with the number of pieces that went out. */
function endless(protocol: Protocol, cut: (piece: string) => string[] = (piece) => [piece]): Promise<number> {
  return new Promise((resolve) => {
    answer = (_req, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write(WIRES[protocol].start(10));
      let sent = 0;
      let isOver = false;
      res.on('close', () => {
        isOver = true;
        resolve(sent);
      });
      const more = (): void => {
        if (isOver) return;
        sent += 1;
        for (const part of cut(WIRES[protocol].delta(TEXT))) res.write(part);
        setImmediate(more);
      };
      more();
    };
  });
}

async function keyWithCents(cents: string): Promise<{ key: string; budgetId: string; sessionId: string }> {
  const sessionId = await createSession(bed.pool, { budgetCents: cents });
  return {
    key: await mintKey(bed.pool, { sessionId }),
    budgetId: await budgetIdOfSession(bed.pool, sessionId),
    sessionId,
  };
}

/** One row, within the limit but for one piece and the estimate, and nothing held any more. */
async function expectStopped(sessionId: string, budgetId: string, limitMicros: number, pieceMicros: number) {
  const row = await eventually(async () =>
    (await ledgerRows(bed.pool)).find((found) => found['session_id'] === sessionId),
  );
  expect(row).toMatchObject({ error: 'budget_exceeded', usage_basis: 'estimated', http_status: 200 });
  const { spent } = await windowOf(bed.pool, budgetId);
  expect(Number(row['cost_micros'])).toBe(spent);
  expect(spent).toBeGreaterThan(limitMicros * 0.6);
  expect(spent).toBeLessThanOrEqual(limitMicros + pieceMicros);
}

describe('a stream whose budget is used up', () => {
  it('ends with an error the Anthropic SDK raises as its own, and keeps the text', { timeout: PATIENCE }, async () => {
    const { key, budgetId, sessionId } = await keyWithCents('1');
    const closed = endless('messages');
    const client = new Anthropic({ baseURL: gateway.url, apiKey: key });
    const stream = client.messages.stream({
      model: 'claude-opus-5',
      max_tokens: 50_000,
      messages: [{ role: 'user', content: 'go' }],
    });
    let text = '';
    stream.on('text', (piece) => (text += piece));
    const error = await stream.finalMessage().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(Anthropic.APIError);
    expect((error as InstanceType<typeof Anthropic.APIError>).type).toBe('billing_error');
    expect(text.length).toBeGreaterThan(TEXT.length * 10);
    expect(text.length % TEXT.length).toBe(0);
    // The provider's connection is closed: nobody pays for what nobody reads.
    expect(await closed).toBeGreaterThan(10);
    expect(asked).toBe(1);
    await expectStopped(sessionId, budgetId, 10_000, ((64 * 1024) / 4) * 25);
  });

  it.each([['chat'], ['responses']] as const)(
    'ends with an error the OpenAI SDK raises as its own (%s), and keeps the text',
    { timeout: PATIENCE },
    async (protocol) => {
      const { key, budgetId, sessionId } = await keyWithCents('1');
      const closed = endless(protocol);
      const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: key });
      let text = '';
      const read = async (): Promise<void> => {
        if (protocol === 'chat') {
          const messages = [{ role: 'user' as const, content: 'go' }];
          // No limit of its own: the hold grows with the answer.
          const stream = await client.chat.completions.create({ model: 'gpt-5.5', stream: true, messages });
          for await (const part of stream) text += part.choices[0]?.delta.content ?? '';
        } else {
          const stream = await client.responses.create({ model: 'gpt-5.5', stream: true, input: 'go' });
          for await (const part of stream) if (part.type === 'response.output_text.delta') text += part.delta;
        }
      };
      const error = await read().then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(OpenAI.APIError);
      expect((error as InstanceType<typeof OpenAI.APIError>).code).toBe('budget_exceeded');
      expect(text.length % TEXT.length).toBe(0);
      expect(text.length).toBeGreaterThan(TEXT.length * 10);
      expect(await closed).toBeGreaterThan(10);
      expect(asked).toBe(1);
      await expectStopped(sessionId, budgetId, 10_000, ((64 * 1024) / 4) * 30);
    },
  );

  it('stops between two events, however the pieces were cut', { timeout: PATIENCE }, async () => {
    const { key } = await keyWithCents('1');
    const closed = endless('messages', (piece) => [piece.slice(0, 30), piece.slice(30, -1), piece.slice(-1)]);
    const body = { model: 'claude-opus-5', max_tokens: 50_000, stream: true, messages: [] };
    const text = await (await post(`${gateway.url}/v1/messages`, key, body)).text();
    await closed;
    const events = text.split('\n\n').filter((part) => part !== '');
    for (const part of events) expect(() => JSON.parse(part.slice(part.indexOf('data:') + 5)) as unknown).not.toThrow();
    expect(events.at(-1)).toMatch(/^event: error\ndata: .*"billing_error".*"budget_exceeded"/);
    expect(events.filter((part) => part.startsWith('event: error'))).toHaveLength(1);
  });

  it('is a failure of its idempotency key: more money, and it is asked again', { timeout: PATIENCE }, async () => {
    const { key, sessionId, budgetId } = await keyWithCents('1');
    const closed = endless('messages');
    const body = { model: 'claude-opus-5', max_tokens: 50_000, stream: true, messages: [] };
    const ask = (): Promise<Response> =>
      post(`${gateway.url}/v1/messages`, key, body, { 'idempotency-key': `${sessionId}/0/0` });
    expect(await (await ask()).text()).toContain('budget_exceeded');
    await closed;
    await bed.pool.query('UPDATE budgets SET hard_limit_micros = 1000000 WHERE id = $1', [budgetId]);
    answer = (_req, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.end(WIRES.messages.start(10) + WIRES.messages.delta(TEXT) + WIRES.messages.end(10, 20));
    };
    expect(await (await ask()).text()).toContain('message_stop');
    expect((await ask()).headers.get('x-longhaul-replayed')).toBe('true');
    const rows = (await ledgerRows(bed.pool)).filter((row) => row['session_id'] === sessionId);
    expect(rows).toHaveLength(1);
    expect(Number(rows[0]?.['cost_micros'])).toBe((await windowOf(bed.pool, budgetId)).spent);
  });

  it('refuses the next call with 402 that no SDK tries again', { timeout: PATIENCE }, async () => {
    const { key, sessionId } = await keyWithCents('1');
    await bed.pool.query('INSERT INTO budget_windows (budget_id, window_key, spent_micros) VALUES ($1, $2, $3)', [
      await budgetIdOfSession(bed.pool, sessionId),
      'total',
      9_999,
    ]);
    const client = new Anthropic({ baseURL: gateway.url, apiKey: key });
    const request = { model: 'claude-opus-5', max_tokens: 100, messages: [] };
    const error = await client.messages.create(request).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ status: 402, type: 'billing_error' });
    const openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: key });
    await expect(openai.responses.create({ model: 'gpt-5.5', input: 'go' })).rejects.toMatchObject({
      status: 402,
      code: 'budget_exceeded',
    });
    const raw = await post(`${gateway.url}/v1/messages`, key, { ...request, stream: true });
    expect([raw.status, raw.headers.get('x-should-retry')]).toEqual([402, 'false']);
    expect(asked).toBe(0);
  });
});

describe('what a call is held for', () => {
  it('is all that it may cost where it does not stream', { timeout: PATIENCE }, async () => {
    const { key } = await keyWithCents('1');
    answer = (_req, res) => res.end(JSON.stringify(WIRES.messages.whole(10, 5)));
    const ask = (maxTokens: number): Promise<Response> =>
      post(`${gateway.url}/v1/messages`, key, { model: 'claude-opus-5', max_tokens: maxTokens, messages: [] });
    expect((await ask(500)).status).toBe(402);
    expect((await ask(300)).status).toBe(200);
  });

  it('has a limit of its own for each call', { timeout: PATIENCE }, async () => {
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    await makeBudget(bed.pool, ['session', sessionId], { period: 'call', hardLimitMicros: 8_000 });
    const closed = endless('messages');
    const body = { model: 'claude-opus-5', max_tokens: 50_000, messages: [] };
    const text = await (await post(`${gateway.url}/v1/messages`, key, { ...body, stream: true })).text();
    await closed;
    expect(text).toContain('budget_exceeded');
    expect((await errorOf(await post(`${gateway.url}/v1/messages`, key, body))).code).toBe('budget_exceeded');
    // The next one has all of it again.
    answer = (_req, res) => res.end(JSON.stringify(WIRES.messages.whole(10, 5)));
    expect((await post(`${gateway.url}/v1/messages`, key, { ...body, max_tokens: 300 })).status).toBe(200);
  });

  it('counts soft limits and stops nothing by them', { timeout: PATIENCE }, async () => {
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    const soft = await makeBudget(bed.pool, ['session', sessionId], { softLimitMicros: 10_000 });
    answer = (_req, res) => res.end(JSON.stringify(WIRES.messages.whole(10, 1_000)));
    const body = { model: 'claude-opus-5', max_tokens: 50_000, messages: [] };
    for (let call = 0; call < 2; call += 1) {
      expect((await post(`${gateway.url}/v1/messages`, key, body)).status).toBe(200);
    }
    await eventually(async () => (await windowOf(bed.pool, soft.id)).spent === 2 * (10 * 5 + 1_000 * 25));
    const told = await eventually(async () => {
      const rows = await bed.pool.query<{ kind: string; percent: number }>(
        'SELECT kind, percent FROM budget_events WHERE budget_id = $1 ORDER BY kind, percent',
        [soft.id],
      );
      return rows.rows.length === 4 && rows.rows;
    });
    expect(told.map(({ kind, percent }) => `${kind} ${percent}`)).toEqual([
      'soft_limit 100',
      'threshold 50',
      'threshold 80',
      'threshold 100',
    ]);
  });
});
