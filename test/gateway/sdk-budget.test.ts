import Anthropic, { APIError as AnthropicError } from '@anthropic-ai/sdk';
import OpenAI, { APIError as OpenAIError } from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { eventually, openTestBed, startGateway, type RunningGateway, type TestBed } from './support.ts';
import { DOUBLE_KEY, SSE_TYPE, startDouble, type ProviderDouble } from './provider-double.ts';

let bed: TestBed;
let double: ProviderDouble;
let gateway: RunningGateway;
let anthropic: Anthropic;
let openai: OpenAI;

beforeAll(async () => {
  [bed, double] = await Promise.all([openTestBed(), startDouble()]);
  gateway = await startGateway(bed.pool, {
    ANTHROPIC_BASE_URL: double.url,
    ANTHROPIC_API_KEY: DOUBLE_KEY,
    OPENAI_BASE_URL: `${double.url}/v1`,
    OPENAI_API_KEY: DOUBLE_KEY,
  });
});
afterAll(async () => {
  await gateway.close();
  await double.close();
  await bed.close();
});
beforeEach(async () => {
  // Five cents: 2,000 tokens of the one model, 5,000 of the other.
  const { key } = await createApiKey(bed.pool, { name: 'k', userId: 'u', teamId: 'team', budgetMicros: 50_000 });
  anthropic = new Anthropic({ baseURL: gateway.url, apiKey: key, maxRetries: 0 });
  openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: key, maxRetries: 0 });
});

const WORDS = 'four words of text. '.repeat(20);
const PIECES = 400;
const ALL = WORDS.repeat(PIECES);

/** A stream that costs far more than there is, cut at places that are no ends of events. */
function endless(events: object[], isNamed: boolean): void {
  const text = events
    .map(
      (event) => `${isNamed ? `event: ${(event as { type: string }).type}\n` : ''}data: ${JSON.stringify(event)}\n\n`,
    )
    .join('');
  const bytes = Buffer.from(text);
  const size = 777;
  const body = Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) =>
    bytes.subarray(at * size, (at + 1) * size),
  );
  double.scene = () => ({ body, headers: { 'content-type': SSE_TYPE }, hangs: true });
}

const deltas = (make: (text: string) => object): object[] => Array.from({ length: PIECES }, () => make(WORDS));

/** Some of the text is there, all of it would have cost too much, and the provider was told to stop. */
async function expectStopped(text: string, leftBefore: number): Promise<void> {
  expect(text.length).toBeGreaterThan(0);
  expect(text.length).toBeLessThan(ALL.length / 2);
  expect(ALL.startsWith(text)).toBe(true);
  await eventually(() => double.left > leftBefore);
}

describe('when the money ends in the middle of a stream', () => {
  it('the Anthropic SDK raises its own error and keeps the text', async () => {
    endless(
      [
        {
          type: 'message_start',
          message: {
            id: 'm',
            type: 'message',
            role: 'assistant',
            content: [],
            model: 'claude-opus-5',
            stop_reason: null,
            stop_sequence: null,
            usage: { input_tokens: 10, output_tokens: 1 },
          },
        },
        { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
        ...deltas((text) => ({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } })),
        { type: 'message_stop' },
      ],
      true,
    );
    const before = double.left;
    let text = '';
    const stream = anthropic.messages
      .stream({ model: 'claude-opus-5', max_tokens: 60_000, messages: [{ role: 'user', content: 'hi' }] })
      .on('text', (piece) => (text += piece));
    const error = await stream.finalMessage().catch((reason: unknown) => reason);
    if (!(error instanceof AnthropicError)) throw new Error('no APIError');
    expect(error.error).toMatchObject({ type: 'error', error: { type: 'billing_error', code: 'budget_exceeded' } });
    expect(error.type).toBe('billing_error');
    await expectStopped(text, before);
    expect(stream.currentMessage?.content).toMatchObject([{ type: 'text', text }]);
  });

  it('the OpenAI SDK raises its own error on chat and keeps the text', async () => {
    endless(
      [
        ...deltas((content) => ({
          id: 'c',
          object: 'chat.completion.chunk',
          created: 1,
          model: 'gpt-5',
          choices: [{ index: 0, delta: { content }, finish_reason: null }],
          usage: null,
        })),
        {
          id: 'c',
          object: 'chat.completion.chunk',
          created: 1,
          model: 'gpt-5',
          choices: [{ index: 0, delta: {}, finish_reason: 'stop' }],
        },
      ],
      false,
    );
    const before = double.left;
    let text = '';
    const reading = (async () => {
      const body = { model: 'gpt-5', messages: [{ role: 'user' as const, content: 'hi' }], stream: true as const };
      for await (const chunk of await openai.chat.completions.create(body))
        text += chunk.choices[0]?.delta.content ?? '';
    })();
    const error = await reading.catch((reason: unknown) => reason);
    if (!(error instanceof OpenAIError)) throw new Error('no APIError');
    expect(error.code).toBe('budget_exceeded');
    await expectStopped(text, before);
  });

  it('the OpenAI SDK raises its own error on Responses and keeps the text', async () => {
    const place = { item_id: 'msg_1', output_index: 0, content_index: 0 };
    const response = { id: 'resp_1', object: 'response', status: 'in_progress', output: [], usage: null };
    const item = { id: 'msg_1', type: 'message', status: 'in_progress', role: 'assistant', content: [] };
    const part = { type: 'output_text', text: '', annotations: [] };
    endless(
      [
        { type: 'response.created', response },
        { type: 'response.output_item.added', output_index: 0, item },
        { type: 'response.content_part.added', ...place, part },
        ...deltas((delta) => ({ type: 'response.output_text.delta', ...place, delta })),
        { type: 'response.completed', response },
      ],
      true,
    );
    const before = double.left;
    let text = '';
    const reading = (async () => {
      for await (const event of await openai.responses.create({ model: 'gpt-5', input: 'hi', stream: true })) {
        if (event.type === 'response.output_text.delta') text += event.delta;
      }
    })();
    const error = await reading.catch((reason: unknown) => reason);
    if (!(error instanceof OpenAIError)) throw new Error('no APIError');
    expect(error.code).toBe('budget_exceeded');
    await expectStopped(text, before);
  });

  it('and the next call is refused before the provider is asked, with an error no SDK tries again', async () => {
    const { key } = await createApiKey(bed.pool, { name: 'k', userId: 'u', teamId: 'team', budgetMicros: 1 });
    const asked = double.requests.length;
    const body = { model: 'claude-opus-5', max_tokens: 10, messages: [{ role: 'user' as const, content: 'hi' }] };
    const client = new Anthropic({ baseURL: gateway.url, apiKey: key, maxRetries: 5 });
    const error = await client.messages.create(body).catch((reason: unknown) => reason);
    if (!(error instanceof AnthropicError)) throw new Error('no APIError');
    expect(error.status).toBe(402);
    const other = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: key, maxRetries: 5 });
    const refused = await other.responses.create({ model: 'gpt-5', input: 'hi' }).catch((reason: unknown) => reason);
    if (!(refused instanceof OpenAIError)) throw new Error('no APIError');
    expect([refused.status, refused.code]).toEqual([402, 'budget_exceeded']);
    expect(double.requests).toHaveLength(asked);
  });
});
