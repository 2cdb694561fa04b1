import Anthropic, { APIError as AnthropicError } from '@anthropic-ai/sdk';
import OpenAI, { APIError as OpenAIError } from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { gunzipSync } from 'node:zlib';
import { eventually, mintKey, openTestBed, startGateway, type RunningGateway, type TestBed } from './support.ts';
import {
  DOUBLE_KEY,
  rawPost,
  SSE_TYPE,
  startDouble,
  type ProviderDouble,
  type RawAnswer,
  type Scene,
} from './provider-double.ts';
import { chat, MESSAGES, RESPONSES, TEXT } from './wire.ts';

let bed: TestBed;
let double: ProviderDouble;
let gateway: RunningGateway;
let key: string;

beforeAll(async () => {
  [bed, double] = await Promise.all([openTestBed(), startDouble()]);
  gateway = await startGateway(bed.pool, {
    ANTHROPIC_BASE_URL: double.url,
    ANTHROPIC_API_KEY: DOUBLE_KEY,
    OPENAI_BASE_URL: `${double.url}/v1`,
    OPENAI_API_KEY: DOUBLE_KEY,
  });
  key = await mintKey(bed.pool, { maxParallel: 1_000 });
});
afterAll(async () => {
  await gateway.close();
  await double.close();
  await bed.close();
});
beforeEach(() => {
  double.requests.length = 0;
});

const PROTOCOLS = { messages: MESSAGES, chat: chat(false), responses: RESPONSES } as const;
type Name = keyof typeof PROTOCOLS;
const NAMES = Object.keys(PROTOCOLS) as Name[];
const stream = (body: Scene['body']): Scene => ({ body, headers: { 'content-type': SSE_TYPE } });

/** What the reference names: docs/reference/gateway.md. */
const KEPT =
  /^(content-type|content-length|cache-control|request-id|x-request-id|retry-after|retry-after-ms|x-should-retry|openai-version|openai-processing-ms|anthropic-ratelimit-.+|x-ratelimit-.+)$/;
const ADDED = /^x-longhaul-(request-id|error)$/;
/** Of the connection, not of the answer. */
const CONNECTION = /^(connection|keep-alive|transfer-encoding|date)$/;

function requestBody(name: Name, isStream: boolean, more: object = {}): string {
  const { model } = PROTOCOLS[name];
  const messages = [{ role: 'user', content: 'Grüße, 世界' }];
  const asked = name === 'responses' ? { input: messages } : { messages };
  return JSON.stringify({ model, max_tokens: 100, ...asked, stream: isStream, ...more });
}

/** The same request to the provider itself and through the gateway. */
async function both(
  name: Name,
  isStream: boolean,
  options: { headers?: Record<string, string>; more?: object } = {},
): Promise<{ direct: RawAnswer; through: RawAnswer }> {
  const { path } = PROTOCOLS[name];
  const body = requestBody(name, isStream, options.more);
  const as = (own: string): Record<string, string> => ({
    ...(name === 'messages'
      ? { 'x-api-key': own, 'anthropic-version': '2023-06-01', 'anthropic-beta': 'b1,b2' }
      : { authorization: `Bearer ${own}` }),
    ...options.headers,
  });
  const direct = await rawPost(`${double.url}${path}`, as(DOUBLE_KEY), body);
  const through = await rawPost(`${gateway.url}${path}`, as(key), body);
  return { direct, through };
}

function pick(answer: RawAnswer, wanted: (name: string) => boolean): Record<string, string[]> {
  return Object.fromEntries(Object.entries(answer.headers).filter(([name]) => wanted(name)));
}

/** The headers both have to have, and no other. */
function expectSameHeaders({ direct, through }: { direct: RawAnswer; through: RawAnswer }): void {
  const isStream = /event-stream/.test(direct.headers['content-type']?.[0] ?? '');
  const expected = pick(direct, (name) => KEPT.test(name) && !(isStream && name === 'content-length'));
  const seen = pick(through, (name) => !CONNECTION.test(name) && !ADDED.test(name));
  expect(seen).toEqual(expected);
  expect(through.headers['x-longhaul-request-id']).toHaveLength(1);
}

function expectSame(answers: { direct: RawAnswer; through: RawAnswer }): void {
  expect(answers.through.status).toBe(answers.direct.status);
  expect(answers.through.body.equals(answers.direct.body), answers.through.body.toString('utf8', 0, 2_000)).toBe(true);
  expectSameHeaders(answers);
}

/** Pieces that end in the middle of characters, of lines and of ends of lines. */
function shredded(text: string, size: number): Buffer[] {
  const bytes = Buffer.from(text);
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) => bytes.subarray(at * size, (at + 1) * size));
}

describe.each(NAMES)('%s: byte by byte as without the gateway', (name) => {
  const wire = PROTOCOLS[name];

  it.each(['text', 'tool', 'thinking'] as const)('a whole answer: %s', async (kind) => {
    double.scene = () => ({ body: wire.whole[kind] });
    expectSame(await both(name, false));
  });

  it.each(['text', 'tool', 'thinking', 'error'] as const)('a stream: %s', async (kind) => {
    double.scene = () => stream([wire.stream[kind]]);
    expectSame(await both(name, true));
  });

  it.each([1, 3, 97])('a stream in pieces of %i bytes', async (size) => {
    double.scene = () => stream(shredded(wire.stream.text, size));
    expectSame(await both(name, true));
  });

  it('a stream with other ends of lines, and none at its end', async () => {
    double.scene = () => stream(shredded(wire.stream.text.replaceAll('\n', '\r\n').trimEnd(), 41));
    expectSame(await both(name, true));
  });

  it.each([400, 404, 413, 429, 500, 503, 529])('an error %i', async (status) => {
    const headers = { 'retry-after': '3', 'retry-after-ms': '2500', 'x-should-retry': 'true' };
    double.scene = () => ({ status, headers, body: wire.error(status) });
    for (const isStream of [false, true]) expectSame(await both(name, isStream));
  });

  it.each([
    ['a page of a proxy', { status: 502, headers: { 'content-type': 'text/html' }, body: '<html>502</html>' }],
    ['nothing', { status: 500, body: '' }],
    ['text in pieces', { status: 500, headers: { 'content-type': 'text/plain' }, body: ['a', 'b'] }],
  ])('an error that is %s', async (_what, scene: Scene) => {
    double.scene = () => scene;
    expectSame(await both(name, false));
  });

  it('an answer of 20 MiB', async () => {
    const huge = wire.whole.text.replace(JSON.stringify(TEXT), JSON.stringify('世'.repeat(7 * 1024 * 1024)));
    double.scene = () => ({ body: huge });
    expectSame(await both(name, false));
  });

  it('but never compressed', async () => {
    double.scene = () => ({ body: wire.whole.text });
    const { direct, through } = await both(name, false, { headers: { 'accept-encoding': 'gzip, br' } });
    expect(direct.headers['content-encoding']).toEqual(['gzip']);
    expect(through.headers).not.toHaveProperty('content-encoding');
    expect(through.body.equals(gunzipSync(direct.body))).toBe(true);
  });

  it('and the provider gets the same bytes', async () => {
    double.scene = () => ({ body: wire.whole.text });
    await both(name, false, { more: { note: 'é "model":"x" \\' } });
    const [direct, through] = double.requests;
    expect(through?.body).toBe(direct?.body);
    expect(through?.path).toBe(direct?.path);
    for (const header of ['anthropic-version', 'anthropic-beta', 'content-type', 'accept']) {
      expect(through?.headers[header] ?? null).toBe(direct?.headers[header] ?? null);
    }
    expect(JSON.stringify(through)).not.toContain(key);
  });

  it('but a 401 is about the gateway’s own key, not the caller’s', async () => {
    double.scene = () => ({ status: 401, body: wire.error(401) });
    const { direct, through } = await both(name, false);
    expect([direct.status, through.status]).toEqual([401, 502]);
    expect(through.body.toString()).not.toContain('世界');
    expect(through.headers['x-longhaul-error']).toEqual(['provider_auth']);
  });

  it('and an end in the middle of an event is told by an event of its own', async () => {
    const start = wire.stream.text.slice(0, wire.stream.text.length / 2);
    double.scene = () => ({ ...stream(shredded(start, 100)), isCut: true });
    const headers = { 'x-api-key': key, 'anthropic-version': '2023-06-01' };
    const through = await rawPost(`${gateway.url}${wire.path}`, headers, requestBody(name, true));
    const events = through.body
      .toString()
      .split('\n\n')
      .filter((event) => event !== '');
    const told = events.pop() ?? '';
    expect(start.startsWith(`${events.join('\n\n')}\n\n`)).toBe(true);
    expect(told).toContain('provider_unavailable');
    expect(told).toMatch(name === 'chat' ? /^data: \{"error":/ : /^event: error\ndata: \{/);
  });
});

describe('chat streams', () => {
  it('tell their usage to a caller who wants it', async () => {
    double.scene = ({ body }) => stream([chat(body.includes('"include_usage":true')).stream.text]);
    const { direct, through } = await both('chat', true, { more: { stream_options: { include_usage: true } } });
    expectSame({ direct, through });
    expect(through.body.toString()).toContain('"total_tokens":40');
  });

  it.each([1, 50, 100_000])('tell it only to the gateway otherwise (pieces of %i bytes)', async (size) => {
    double.scene = ({ body }) => stream(shredded(chat(body.includes('"include_usage":true')).stream.text, size));
    expectSame(await both('chat', true));
    expectSame(await both('chat', true, { more: { stream_options: { include_obfuscation: true } } }));
    const asked = double.requests.map(({ body }) => body.includes('"include_usage":true'));
    expect(asked).toEqual([false, true, false, true]);
  });
});

const clients = (): { anthropic: Anthropic; openai: OpenAI }[] =>
  [
    { url: double.url, own: DOUBLE_KEY },
    { url: gateway.url, own: key },
  ].map(({ url, own }) => ({
    anthropic: new Anthropic({ baseURL: url, apiKey: own, maxRetries: 0 }),
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: own, maxRetries: 0 }),
  }));
const tools = { name: 'weather', parameters: { type: 'object' } };

/** What a client makes of it, directly and through the gateway. */
async function same<T>(use: (client: { anthropic: Anthropic; openai: OpenAI }) => Promise<T>): Promise<T> {
  const [direct, through] = clients();
  const expected = await use(direct!);
  const seen = await use(through!);
  expect(seen).toEqual(expected);
  return seen;
}

interface Raised {
  kind: string;
  status: unknown;
  error: unknown;
  requestId: unknown;
}
async function raised(work: Promise<unknown>): Promise<Raised> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof AnthropicError || error instanceof OpenAIError)) throw new Error('no APIError');
  const requestId = 'requestID' in error ? error.requestID : undefined;
  return { kind: error.constructor.name, status: error.status, error: error.error, requestId };
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  const made: { resolve?: () => void } = {};
  const promise = new Promise<void>((resolve) => {
    made.resolve = resolve;
  });
  return { promise, resolve: () => made.resolve?.() };
}

describe('the official SDKs', () => {
  const claude = {
    model: 'claude-opus-5',
    max_tokens: 100,
    messages: [{ role: 'user' as const, content: 'hi' }],
    tools: [{ name: tools.name, input_schema: { type: 'object' as const } }],
  };
  const gpt = {
    model: 'gpt-5',
    messages: [{ role: 'user' as const, content: 'hi' }],
    tools: [{ type: 'function' as const, function: tools }],
  };
  const asked = { model: 'gpt-5', input: 'hi', tools: [{ type: 'function' as const, ...tools, strict: false }] };

  it.each(['text', 'tool', 'thinking'] as const)('read whole answers (%s)', async (kind) => {
    double.scene = () => ({ body: MESSAGES.whole[kind] });
    await same(({ anthropic }) => anthropic.messages.create(claude));
    double.scene = () => ({ body: chat(false).whole[kind] });
    await same(({ openai }) => openai.chat.completions.create(gpt));
    double.scene = () => ({ body: RESPONSES.whole[kind] });
    await same(({ openai }) => openai.responses.create(asked));
  });

  it.each(['text', 'tool', 'thinking'] as const)('read streams (%s)', async (kind) => {
    double.scene = () => stream(shredded(MESSAGES.stream[kind], 33));
    const message = await same(({ anthropic }) => anthropic.messages.stream(claude).finalMessage());
    double.scene = ({ body }) => stream(shredded(chat(body.includes('"include_usage":true')).stream[kind], 33));
    const completion = await same(({ openai }) => openai.chat.completions.stream(gpt).finalChatCompletion());
    double.scene = () => stream(shredded(RESPONSES.stream[kind], 33));
    const response = await same(({ openai }) => openai.responses.stream(asked).finalResponse());
    if (kind === 'text') {
      expect(message.content).toMatchObject([{ type: 'text', text: TEXT }]);
      expect(completion.choices[0]?.message.content).toBe(TEXT);
      expect(response.output_text).toBe(TEXT);
    } else if (kind === 'tool') {
      expect(message.content).toMatchObject([{ name: 'weather', input: { city: 'Zürich' } }]);
      expect(completion.choices[0]?.message.tool_calls).toMatchObject([{ function: { name: 'weather' } }]);
      expect(response.output).toMatchObject([{ type: 'function_call', name: 'weather' }]);
    }
  });

  it.each([400, 404, 413, 429, 500, 529])('raise their own error for a %i', async (status) => {
    double.scene = () => ({ status, body: MESSAGES.error(status) });
    const seen = [await same(({ anthropic }) => raised(anthropic.messages.create(claude)))];
    double.scene = () => ({ status, body: RESPONSES.error(status) });
    seen.push(await same(({ openai }) => raised(openai.chat.completions.create(gpt))));
    seen.push(await same(({ openai }) => raised(openai.responses.create(asked))));
    expect(seen.map((error) => error.status)).toEqual([status, status, status]);
  });

  it('raise their own error for an error in a stream, and keep the text before it', async () => {
    double.scene = () => stream([MESSAGES.stream.error]);
    const fromMessages = await same(async ({ anthropic }) => {
      let text = '';
      const reading = anthropic.messages.stream(claude).on('text', (piece) => (text += piece));
      return { ...(await raised(reading.finalMessage())), text };
    });
    expect(fromMessages.text).toBe(TEXT);
    double.scene = () => stream([chat(false).stream.error]);
    const fromChat = await same(async ({ openai }) => {
      let text = '';
      const read = async (): Promise<void> => {
        for await (const piece of await openai.chat.completions.create({ ...gpt, stream: true })) {
          text += piece.choices[0]?.delta.content ?? '';
        }
      };
      return { ...(await raised(read())), text };
    });
    expect(fromChat.text).not.toBe('');
    double.scene = () => stream([RESPONSES.stream.error]);
    await same(async ({ openai }) => {
      let text = '';
      const read = async (): Promise<void> => {
        for await (const event of await openai.responses.create({ ...asked, stream: true })) {
          if (event.type === 'response.output_text.delta') text += event.delta;
        }
      };
      const error = await read().then(
        () => 'no error',
        (reason: unknown) => (reason as Error).constructor.name,
      );
      expect(text).toBe(TEXT);
      return { error, text };
    });
  });

  it('end the call at the provider when they go away, unless it has an Idempotency-Key', async () => {
    const events = MESSAGES.stream.text;
    const start = events.slice(0, events.indexOf('event: content_block_stop'));
    for (const isKeyed of [false, true]) {
      const { promise: held, resolve: finish } = deferred();
      double.scene = () => ({ ...stream([start]), rest: { when: held, body: events.slice(start.length) } });
      const [sent, left] = [double.requests.length, double.left];
      const client = clients()[1]!.anthropic;
      const headers = isKeyed ? { 'idempotency-key': 'finish-it' } : {};
      const reading = client.messages.stream(claude, { headers });
      await new Promise((resolve) => reading.once('text', resolve));
      reading.abort();
      await reading.done().catch(() => undefined);
      if (isKeyed) {
        finish();
        const again = await client.messages.stream(claude, { headers }).finalMessage();
        expect(again.content).toMatchObject([{ type: 'text', text: TEXT }]);
        expect([double.requests.length - sent, double.left - left]).toEqual([1, 0]);
      } else await eventually(() => double.left === left + 1);
      finish();
    }
  });
});
