import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Usage } from '../../contracts/definitions.ts';
import type { Protocol } from '../../gateway/protocol.ts';
import { NO_USAGE } from '../../gateway/usage/normalise.ts';
import { createTap, type UsageTap } from '../../gateway/usage/tap.ts';

const usage = (fields: Partial<Usage>): Usage => ({ ...NO_USAGE, ...fields });

/** What each vendor says about one call, in its answer without a stream, and what we make of it. */
const BODIES: [string, Protocol, object, Usage][] = [
  [
    'Anthropic',
    'messages',
    {
      input_tokens: 10,
      cache_creation_input_tokens: 30,
      cache_read_input_tokens: 20,
      cache_creation: { ephemeral_5m_input_tokens: 10, ephemeral_1h_input_tokens: 20 },
      output_tokens: 40,
      output_tokens_details: { thinking_tokens: 15 },
      server_tool_use: { web_search_requests: 2, web_fetch_requests: 1 },
      service_tier: 'standard',
    },
    usage({
      inputTokens: 10,
      cacheReadTokens: 20,
      cacheWrite5mTokens: 10,
      cacheWrite1hTokens: 20,
      outputTokens: 40,
      reasoningTokens: 15,
      webSearches: 2,
    }),
  ],
  [
    'Anthropic without the breakdown of its cache',
    'messages',
    { input_tokens: 1, cache_creation_input_tokens: 30, cache_read_input_tokens: null, output_tokens: 2 },
    usage({ inputTokens: 1, cacheWrite5mTokens: 30, outputTokens: 2 }),
  ],
  [
    'Anthropic with work beside the answer, which its sums leave out',
    'messages',
    {
      input_tokens: 100,
      output_tokens: 10,
      iterations: [
        { type: 'compaction', input_tokens: 1_000, output_tokens: 300, cache_read_input_tokens: 7 },
        { type: 'message', input_tokens: 100, output_tokens: 10 },
        { type: 'advisor_message', model: 'claude-opus-5', input_tokens: 50, output_tokens: 5 },
      ],
    },
    usage({ inputTokens: 1_150, cacheReadTokens: 7, outputTokens: 315 }),
  ],
  [
    'OpenAI chat',
    'chat',
    {
      prompt_tokens: 100,
      completion_tokens: 30,
      total_tokens: 130,
      prompt_tokens_details: { cached_tokens: 60, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 20, accepted_prediction_tokens: 0 },
    },
    usage({ inputTokens: 40, cacheReadTokens: 60, outputTokens: 30, reasoningTokens: 20 }),
  ],
  ['a plain server', 'chat', { prompt_tokens: 5, completion_tokens: 6 }, usage({ inputTokens: 5, outputTokens: 6 })],
  [
    'DeepSeek',
    'chat',
    {
      prompt_tokens: 50,
      completion_tokens: 6,
      prompt_cache_hit_tokens: 30,
      prompt_cache_miss_tokens: 20,
      total_tokens: 56,
    },
    usage({ inputTokens: 20, cacheReadTokens: 30, outputTokens: 6 }),
  ],
  [
    'xAI, which counts reasoning beside the completion',
    'chat',
    {
      prompt_tokens: 50,
      completion_tokens: 6,
      total_tokens: 156,
      completion_tokens_details: { reasoning_tokens: 100 },
    },
    usage({ inputTokens: 50, outputTokens: 106, reasoningTokens: 100 }),
  ],
  [
    'Gemini, which counts thoughts in the total only',
    'chat',
    { prompt_tokens: 50, completion_tokens: 6, total_tokens: 76 },
    usage({ inputTokens: 50, outputTokens: 26, reasoningTokens: 20 }),
  ],
  [
    'OpenAI Responses',
    'responses',
    {
      input_tokens: 50,
      input_tokens_details: { cached_tokens: 10, cache_write_tokens: 20 },
      output_tokens: 5,
      output_tokens_details: { reasoning_tokens: 2 },
      total_tokens: 55,
    },
    usage({ inputTokens: 20, cacheReadTokens: 10, cacheWrite5mTokens: 20, outputTokens: 5, reasoningTokens: 2 }),
  ],
  [
    'nonsense',
    'chat',
    {
      prompt_tokens: -1,
      completion_tokens: '7',
      total_tokens: 1e300,
      prompt_tokens_details: [],
      completion_tokens_details: 3,
    },
    NO_USAGE,
  ],
];

function tapOf(protocol: Protocol, isStream: boolean, chunks: Buffer[]): UsageTap {
  const tap = createTap(protocol, isStream);
  for (const chunk of chunks) tap.push(chunk);
  tap.finish();
  return tap;
}

describe('usage of an answer without a stream', () => {
  it.each(BODIES)('%s', (_name, protocol, said, expected) => {
    const tap = tapOf(protocol, false, [Buffer.from(JSON.stringify({ id: 'x', text: 'a "usage": 1', usage: said }))]);
    expect(tap.usage).toEqual(expected);
    expect(tap).toMatchObject({ isFinal: true, isComplete: true });
  });

  it.each([
    ['{"id":"x"}', true],
    ['{"id":"x","usage":null}', true],
    ['{"\\u0075sage":{"input_tokens":3,"output_tokens":4}}', true],
    ['<html>', false],
    ['{"id":"x"', false],
    ['', false],
  ])('%s is complete: %s', (body, isComplete) => {
    const tap = tapOf('messages', false, [Buffer.from(body)]);
    expect(tap.isComplete).toBe(isComplete);
    expect(tap.isFinal).toBe(body.includes('input_tokens'));
  });
});

const sse = (events: [string | null, unknown][]): Buffer =>
  Buffer.from(
    events
      .map(([name, data]) => {
        const text = typeof data === 'string' ? data : JSON.stringify(data);
        return `${name === null ? '' : `event: ${name}\n`}data: ${text}\n\n`;
      })
      .join(''),
  );
const messagesEvent = (data: { type: string; [field: string]: unknown }): [string, unknown] => [data.type, data];
const textOf = (index: number): string => `text ${index} "usage": {"output_tokens": 999} \\ é😀\n`;
const messagesDeltas = Array.from({ length: 5 }, (_, index) =>
  messagesEvent({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: textOf(index) } }),
);
const chatDeltas = Array.from({ length: 5 }, (_, index): [null, unknown] => [
  null,
  { id: 'c', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content: textOf(index) } }], usage: null },
]);

/** Streams as their vendors send them: bytes, usage, events that have to be parsed for it. */
const STREAMS: [string, Protocol, Buffer, Usage, number][] = [
  [
    'Anthropic: message_start, then sums so far',
    'messages',
    sse([
      messagesEvent({
        type: 'message_start',
        message: {
          id: 'm',
          usage: {
            input_tokens: 10,
            cache_creation_input_tokens: 30,
            cache_read_input_tokens: 20,
            cache_creation: { ephemeral_5m_input_tokens: 10, ephemeral_1h_input_tokens: 20 },
            output_tokens: 1,
          },
        },
      }),
      ...messagesDeltas,
      messagesEvent({ type: 'message_delta', delta: {}, usage: { output_tokens: 25 } }),
      messagesEvent({ type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 40 } }),
      messagesEvent({ type: 'message_stop' }),
    ]),
    usage({ inputTokens: 10, cacheReadTokens: 20, cacheWrite5mTokens: 10, cacheWrite1hTokens: 20, outputTokens: 40 }),
    3,
  ],
  [
    'Anthropic: sums with compaction, null for what is not known',
    'messages',
    sse([
      messagesEvent({ type: 'message_start', message: { usage: { input_tokens: 10, output_tokens: 1 } } }),
      messagesEvent({
        type: 'message_delta',
        delta: {},
        usage: {
          input_tokens: null,
          cache_read_input_tokens: 5,
          output_tokens: 4,
          iterations: [{ type: 'compaction', input_tokens: 100, output_tokens: 50 }],
          server_tool_use: { web_search_requests: 1 },
        },
      }),
      messagesEvent({ type: 'message_delta', delta: {}, usage: { output_tokens: 9 } }),
      messagesEvent({ type: 'message_stop' }),
    ]),
    usage({ inputTokens: 110, cacheReadTokens: 5, outputTokens: 59, webSearches: 1 }),
    3,
  ],
  [
    'Bedrock: metrics at the end, when the model itself said nothing final',
    'messages',
    sse([
      messagesEvent({ type: 'message_start', message: { usage: { input_tokens: 10, output_tokens: 1 } } }),
      ...messagesDeltas,
      messagesEvent({
        type: 'message_stop',
        'amazon-bedrock-invocationMetrics': {
          inputTokenCount: 10,
          outputTokenCount: 33,
          invocationLatency: 2_000,
          firstByteLatency: 500,
          cacheReadInputTokenCount: 4,
          cacheWriteInputTokenCount: 3,
        },
      }),
    ]),
    usage({ inputTokens: 10, cacheReadTokens: 4, cacheWrite5mTokens: 3, outputTokens: 33 }),
    2,
  ],
  [
    'OpenAI chat: a last chunk with usage',
    'chat',
    sse([
      ...chatDeltas,
      [
        null,
        {
          choices: [],
          usage: {
            prompt_tokens: 100,
            completion_tokens: 30,
            prompt_tokens_details: { cached_tokens: 60 },
            completion_tokens_details: { reasoning_tokens: 20 },
          },
        },
      ],
      [null, '[DONE]'],
    ]),
    usage({ inputTokens: 40, cacheReadTokens: 60, outputTokens: 30, reasoningTokens: 20 }),
    1,
  ],
  [
    'Groq: usage beside the chunk',
    'chat',
    sse([
      ...chatDeltas,
      [null, { choices: [], x_groq: { usage: { prompt_tokens: 3, completion_tokens: 4 } } }],
      [null, '[DONE]'],
    ]),
    usage({ inputTokens: 3, outputTokens: 4 }),
    1,
  ],
  ...(['response.completed', 'response.incomplete'] as const).map((last): (typeof STREAMS)[number] => [
    `OpenAI Responses: ${last}`,
    'responses',
    sse([
      ['response.created', { type: 'response.created', response: { usage: null, instructions: '"usage"' } }],
      ['response.output_text.delta', { type: 'response.output_text.delta', delta: textOf(1) }],
      ['response.output_text.done', { type: 'response.output_text.done', text: textOf(1).repeat(50), usage: {} }],
      [
        last,
        {
          type: last,
          response: {
            output: [{ usage: null }],
            usage: {
              input_tokens: 50,
              input_tokens_details: { cached_tokens: 10 },
              output_tokens: 5,
              output_tokens_details: { reasoning_tokens: 2 },
            },
          },
        },
      ],
    ]),
    usage({ inputTokens: 40, cacheReadTokens: 10, outputTokens: 5, reasoningTokens: 2 }),
    1,
  ]),
];

/** The same bytes in pieces. */
function cut(bytes: Buffer, places: number[]): Buffer[] {
  const at = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return at.slice(0, -1).map((start, index) => bytes.subarray(start, at[index + 1]));
}

const soFar = (protocol: Protocol, events: [string | null, unknown][]): number => {
  const tap = createTap(protocol, true);
  tap.push(sse(events));
  return tap.usageSoFar.outputTokens;
};

describe('usage of a stream', () => {
  afterEach(() => vi.restoreAllMocks());

  it.each(STREAMS)('%s', (_name, protocol, bytes, expected, parsed) => {
    const parse = vi.spyOn(JSON, 'parse');
    const tap = tapOf(protocol, true, [bytes]);
    expect(parse).toHaveBeenCalledTimes(parsed);
    expect(tap.usage).toEqual(expected);
    expect(tap).toMatchObject({ isFinal: true, isReported: true, isComplete: true, streamError: undefined });
  });

  it.each(STREAMS)('is the same however the bytes are cut: %s', (_name, protocol, bytes, expected) => {
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 40 }), fc.boolean(), (places, withReturns) => {
        const sent = withReturns ? Buffer.from(bytes.toString().replaceAll('\n', '\r\n')) : bytes;
        const whole = tapOf(protocol, true, [sent]);
        const pieces = tapOf(protocol, true, cut(sent, places));
        expect(whole.usage).toEqual(expected);
        expect({ ...pieces }).toEqual({ ...whole });
      }),
    );
  });

  it.each(STREAMS)(
    'that was cut off: an estimate, the same however the bytes are cut: %s',
    (_name, protocol, bytes) => {
      fc.assert(
        fc.property(fc.nat(bytes.length - 1), fc.array(fc.nat(), { maxLength: 20 }), (length, places) => {
          const sent = bytes.subarray(0, length);
          const whole = tapOf(protocol, true, [sent]);
          const pieces = tapOf(protocol, true, cut(sent, places));
          expect({ ...pieces }).toEqual({ ...whole });
          for (const tokens of Object.values(whole.usage)) expect(Number.isSafeInteger(tokens)).toBe(true);
        }),
      );
    },
  );

  it('is never lost to bytes that make no sense', () => {
    const junk = fc.oneof(
      fc.string().map((text) => Buffer.from(`data: ${text}\n\n`)),
      fc.jsonValue().map((value) => Buffer.from(`event: message_delta\ndata: ${JSON.stringify({ usage: value })}\n\n`)),
      fc.uint8Array().map((bytes) => Buffer.from([...bytes, 0x0a, 0x0a])),
    );
    fc.assert(
      fc.property(fc.constantFrom<Protocol>('messages', 'chat', 'responses'), fc.array(junk), (protocol, pieces) => {
        const tap = tapOf(protocol, true, pieces);
        for (const tokens of Object.values(tap.usage)) expect(Number.isSafeInteger(tokens) && tokens >= 0).toBe(true);
      }),
    );
  });

  const words = 'x'.repeat(400);

  it.each<[string, Protocol, [string | null, unknown][], number]>([
    [
      'text',
      'messages',
      [messagesEvent({ type: 'content_block_delta', delta: { type: 'text_delta', text: words } })],
      100,
    ],
    [
      'tool input',
      'messages',
      [messagesEvent({ type: 'content_block_delta', delta: { type: 'input_json_delta', partial_json: `"${words}` } })],
      101,
    ],
    [
      'signatures and pings are no output',
      'messages',
      [
        messagesEvent({ type: 'content_block_delta', delta: { type: 'signature_delta', signature: words } }),
        messagesEvent({ type: 'ping' }),
      ],
      0,
    ],
    ['chat text', 'chat', [[null, { id: 'c'.repeat(200), choices: [{ delta: { content: words } }] }]], 100],
    ['chat text with spaces', 'chat', [[null, `{"choices": [{"delta": {"content": "${words}"}}]}`]], 100],
    ['chat reasoning', 'chat', [[null, { choices: [{ delta: { content: null, reasoning_content: words } }] }]], 100],
    [
      'chat tool calls',
      'chat',
      [[null, { choices: [{ delta: { tool_calls: [{ function: { arguments: words } }] } }] }]],
      100,
    ],
    [
      'responses: what is done was counted when it came',
      'responses',
      [
        ['response.output_text.delta', { type: 'response.output_text.delta', delta: words }],
        ['response.output_text.done', { type: 'response.output_text.done', text: words }],
        ['response.output_item.done', { type: 'response.output_item.done', item: { text: words } }],
      ],
      100,
    ],
    [
      'responses without names of events',
      'responses',
      [[null, { type: 'response.output_text.delta', delta: words }]],
      100,
    ],
    [
      'at least one for an event',
      'messages',
      messagesDeltas.slice(0, 1).map(() => messagesEvent({ type: 'content_block_delta' })),
      1,
    ],
  ])('is estimated before it is reported: %s', (_name, protocol, events, tokens) => {
    expect(soFar(protocol, events)).toBe(tokens);
  });
});
