import Anthropic, { APIError } from '@anthropic-ai/sdk';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findScriptBlock } from '../../gateway/providers/scripted-script.ts';
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
  type LedgerRow,
  type RunningGateway,
  type TestBed,
} from './support.ts';

let bed: TestBed;
let gateway: RunningGateway;
let client: Anthropic;
let key: string;

beforeAll(async () => {
  bed = await openTestBed();
  gateway = await startGateway(bed.pool);
  key = await mintKey(bed.pool);
  client = new Anthropic({ baseURL: gateway.url, apiKey: key, maxRetries: 0 });
});
afterAll(async () => {
  await gateway.close();
  await bed.close();
});

const BASH = { name: 'bash', input_schema: { type: 'object' as const } };
type Message = Anthropic.MessageParam;

function ask(content: string | Message[], extra: object = {}): Promise<Anthropic.Message> {
  const messages: Message[] = typeof content === 'string' ? [{ role: 'user', content }] : content;
  return client.messages.create({ model: 'scripted', max_tokens: 100, messages, ...extra, stream: false });
}

function textOf(message: Anthropic.Message): string {
  return message.content.map((block) => (block.type === 'text' ? block.text : '')).join('');
}

/** The ledger row of a call; such rows are written behind the answer. */
function rowOf(protocol: string, outputTokens: number): Promise<LedgerRow> {
  return eventually(async () =>
    (await ledgerRows(bed.pool)).find((row) => row['protocol'] === protocol && row['output_tokens'] === outputTokens),
  );
}

function responses(body: object): Promise<Response> {
  return post(`${gateway.url}/v1/responses`, key, { model: 'scripted', ...body });
}

async function chat(body: object): Promise<Record<string, never>> {
  const response = await post(`${gateway.url}/v1/chat/completions`, key, { model: 'scripted', ...body });
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, never>;
}

describe('with the official Anthropic SDK', () => {
  it('streams text, thinking and tools', async () => {
    const step = { thinking: 'hm', text: 'I look around.', tools: [{ name: 'bash', input: { command: 'ls é' } }] };
    const deltas: string[] = [];
    const stream = client.messages.stream({
      model: 'scripted',
      max_tokens: 100,
      tools: [BASH],
      messages: [{ role: 'user', content: scriptText([step]) }],
    });
    stream.on('text', (text) => deltas.push(text));
    const message = await stream.finalMessage();
    expect(message.stop_reason).toBe('tool_use');
    expect(message.content).toMatchObject([
      { type: 'thinking', thinking: 'hm' },
      { type: 'text', text: 'I look around.' },
      { type: 'tool_use', name: 'bash', input: { command: 'ls é' } },
    ]);
    expect(deltas.length).toBeGreaterThan(1);
    expect(deltas.join('')).toBe('I look around.');
    const whole = await ask(scriptText([step]), { tools: [BASH] });
    expect(whole.content).toEqual(message.content);
    expect(whole.id).toBe(message.id);
  });

  it('plays step n after n assistant messages, and `done` beyond the last', async () => {
    const steps = [
      { tools: [{ name: 'bash', input: { command: 'a' } }] },
      { text: 'got {{lastToolResult}}', tools: [{ name: 'bash', input: { deep: [{ x: '<{{lastToolResult}}>' }] } }] },
    ];
    const messages: Message[] = [{ role: 'user', content: scriptText(steps) }];
    const first = await ask(messages, { tools: [BASH] });
    const call = first.content[0];
    if (call?.type !== 'tool_use') throw new Error('no tool call');
    messages.push({ role: 'assistant', content: first.content });
    messages.push({
      role: 'user',
      content: [{ type: 'tool_result', tool_use_id: call.id, content: scriptText([{ text: 'hijacked $&' }]) }],
    });
    const second = await ask(messages, { tools: [BASH] });
    const result = scriptText([{ text: 'hijacked $&' }]);
    expect(second.content).toMatchObject([
      { type: 'text', text: `got ${result}` },
      { type: 'tool_use', input: { deep: [{ x: `<${result}>` }] } },
    ]);
    messages.push({ role: 'assistant', content: second.content }, { role: 'user', content: 'go on' });
    expect(textOf(await ask(messages, { tools: [BASH] }))).toBe('done');
    messages.push({ role: 'assistant', content: 'done' }, { role: 'user', content: scriptText([{ text: 'anew' }]) });
    expect(textOf(await ask(messages, { tools: [BASH] }))).toBe('anew');
  });

  it('gives the same answer to the same request, whoever asks', async () => {
    const request = messagesRequest(scriptText([{ text: 'x', tools: [{ name: 'bash', input: {} }] }]), {
      tools: [BASH],
    });
    const other = await mintKey(bed.pool, { teamId: 'other', userId: 'other' });
    const [one, two] = await Promise.all(
      [key, other].map(async (who) => (await post(`${gateway.url}/v1/messages`, who, request)).text()),
    );
    expect(one).toBe(two);
  });

  it('answers shortly where the tool of the step is not declared', async () => {
    const text = textOf(await ask(scriptText([{ text: 'never', tools: [{ name: 'bash', input: {} }] }])));
    expect(text).toContain('scripted');
    expect(text).not.toContain('never');
  });

  it('quotes the user where there is no script, cut to a short text', async () => {
    const text = textOf(await ask(`Hello 👋 ${'x'.repeat(5_000)}`));
    expect(text).toContain('Hello 👋');
    expect(text).toContain('scripted');
    expect(text.length).toBeLessThan(400);
  });

  it('reports the usage the step names, else bytes/4', async () => {
    const named = await ask(scriptText([{ text: 'x', usage: { input: 7, output: 8, cacheRead: 9, cacheWrite: 10 } }]));
    expect(named.usage).toMatchObject({
      input_tokens: 7,
      output_tokens: 8,
      cache_read_input_tokens: 9,
      cache_creation_input_tokens: 10,
    });
    const counted = await ask(scriptText([{ text: '12345678' }]));
    expect(counted.usage.output_tokens).toBe(2);
    expect(counted.usage.input_tokens).toBeGreaterThan(20);
  });

  it('counts tokens', async () => {
    const { input_tokens: tokens } = await client.messages.countTokens({
      model: 'scripted',
      messages: [{ role: 'user', content: 'x'.repeat(400) }],
    });
    expect(tokens).toBeGreaterThan(100);
  });

  it.each([
    [400, 400, 'provider_rejected'],
    [401, 502, 'provider_auth'],
    [429, 429, 'provider_rate_limited'],
    [500, 500, 'provider_unavailable'],
    [529, 529, 'provider_unavailable'],
  ])('a scripted %i is a %i for the caller, %s for us', async (status, seen, code) => {
    const error = await ask(scriptText([{ error: { status, type: 'some_error', message: 'so it is' } }])).catch(
      (reason: unknown) => reason,
    );
    if (!(error instanceof APIError)) throw new Error('no APIError');
    expect(error.status).toBe(seen);
    expect(error.headers?.get('x-longhaul-error')).toBe(code);
    if (code === 'provider_auth') expect(error.error).toMatchObject({ error: { code } });
    else expect(error.error).toEqual({ type: 'error', error: { type: 'some_error', message: 'so it is' } });
  });

  it('fails `times` askings, then plays the step', async () => {
    const script = scriptText([{ text: 'at last', error: { status: 500, times: 2 } }], 'unique-times');
    await expect(ask(script)).rejects.toBeInstanceOf(APIError);
    await expect(ask(script)).rejects.toBeInstanceOf(APIError);
    expect(textOf(await ask(script))).toBe('at last');
  });

  it('counts failed askings of a session over restarts of the gateway', async () => {
    const sessionId = await createSession(bed.pool);
    const own = await mintKey(bed.pool, { sessionId });
    const body = messagesRequest(scriptText([{ text: 'at last', error: { status: 500, times: 1 } }]));
    expect((await post(`${gateway.url}/v1/messages`, own, body)).status).toBe(500);
    const next = await startGateway(bed.pool);
    try {
      expect((await post(`${next.url}/v1/messages`, own, body)).status).toBe(200);
    } finally {
      await next.close();
    }
    const seen = await fetch(`${gateway.url}/scripted/calls?session=${sessionId}`, { headers: { 'x-api-key': own } });
    expect(await seen.json()).toMatchObject({ data: [{ session_id: sessionId, step: 0, asked: 2, billed: 1 }] });
  });

  it('cuts a stream after so many chunks', async () => {
    const seen: string[] = [];
    const stream = client.messages.stream({
      model: 'scripted',
      max_tokens: 100,
      messages: [{ role: 'user', content: scriptText([{ text: 'abcdef', chunks: 6, cutAfterChunks: 2 }]) }],
    });
    stream.on('text', (text) => seen.push(text));
    await expect(stream.finalMessage()).rejects.toBeInstanceOf(APIError);
    expect(seen).toEqual(['a', 'b']);
  });

  it.each([
    // A page where a stream was asked for never reaches a caller.
    ['text/html', '<h1>Sign in</h1>', 200, 529],
    ['text/event-stream', 'data: {"oops\n\n', 200, 200],
    ['text/plain', 'no backend', 503, 503],
  ])('answers with a body of %s that is no answer', async (contentType, body, status, seen) => {
    const request = messagesRequest(scriptText([{ raw: { contentType, body, status } }]), { stream: true });
    const response = await post(`${gateway.url}/v1/messages`, key, request);
    expect(response.status).toBe(seen);
    expect((await response.text()).includes(body)).toBe(contentType !== 'text/html');
  });

  it('sends as many chunks as the step says, with time between them', async () => {
    const started = performance.now();
    const body = messagesRequest(scriptText([{ text: 'hi', chunks: 6, chunkMs: 20, delayMs: 30 }]), { stream: true });
    const text = await (await post(`${gateway.url}/v1/messages`, key, body)).text();
    expect(text.match(/text_delta/g)).toHaveLength(6);
    // Never earlier than the waits; how much later is no matter of this test.
    expect(performance.now() - started).toBeGreaterThan(125);
  });

  it.each([
    ['[{"txt":"x"}]', 'txt'],
    ['{"text":"x"}', 'script'],
    ['[{"text":"x"}', 'not JSON'],
    ['[{"error":{"status":200}}]', 'script[0.error.status]'],
    ['[{"delayMs":999999999}]', 'script[0.delayMs]'],
  ])('names what is wrong with the script %s', async (block, named) => {
    const response = await post(`${gateway.url}/v1/messages`, key, messagesRequest(`\`\`\`script\n${block}\n\`\`\``));
    expect(response.status).toBe(400);
    const error = await errorOf(response);
    expect(error.code).toBe('provider_rejected');
    expect(error.message).toContain(named);
  });
});

describe('on chat-completions', () => {
  const tools = [{ type: 'function', function: { name: 'bash', parameters: { type: 'object' } } }];

  it('plays the steps', async () => {
    const messages: object[] = [
      { role: 'system', content: scriptText([{ text: 'not this one' }]) },
      {
        role: 'user',
        content: [
          {
            type: 'text',
            text: scriptText([
              { text: 'a', tools: [{ name: 'bash', input: { command: 'x' } }] },
              { text: '={{lastToolResult}}' },
            ]),
          },
        ],
      },
    ];
    const first = await chat({ messages, tools });
    const choice = first['choices']?.[0] as never as { finish_reason: string; message: Record<string, never> };
    expect(choice.finish_reason).toBe('tool_calls');
    expect(choice.message).toMatchObject({
      content: 'a',
      tool_calls: [{ type: 'function', function: { name: 'bash', arguments: '{"command":"x"}' } }],
    });
    messages.push(choice.message, { role: 'tool', tool_call_id: 'x', content: 'out' });
    const second = await chat({ messages, tools });
    expect(second).toMatchObject({ choices: [{ finish_reason: 'stop', message: { content: '=out' } }] });
  });

  it.each([true, false])(
    'streams chunks and the end marker, a usage chunk only if asked to: %s',
    async (wantsUsage) => {
      const step = { text: 'abc', chunks: 3, usage: { input: 10, output: 3, cacheRead: 90 } };
      await bed.pool.query('TRUNCATE ledger');
      const response = await post(`${gateway.url}/v1/chat/completions`, key, {
        model: 'scripted',
        stream: true,
        ...(wantsUsage && { stream_options: { include_usage: true } }),
        messages: [{ role: 'user', content: scriptText([step]) }],
      });
      const events = (await response.text()).split('\n\n').filter((event) => event !== '');
      expect(events.at(-1)).toBe('data: [DONE]');
      const chunks = events.slice(0, -1).map((event) => JSON.parse(event.slice(6)) as Record<string, never>);
      expect(
        chunks
          .map((chunk) => (chunk['choices']?.[0] as never as { delta?: { content?: string } })?.delta?.content ?? '')
          .join(''),
      ).toBe('abc');
      const usage = { prompt_tokens: 100, completion_tokens: 3, prompt_tokens_details: { cached_tokens: 90 } };
      if (wantsUsage) expect(chunks.at(-1)).toMatchObject({ usage });
      else expect(chunks.some((chunk) => 'usage' in chunk)).toBe(false);
      expect(await rowOf('chat', 3)).toMatchObject({
        input_tokens: 10,
        cache_read_tokens: 90,
        output_tokens: 3,
      });
    },
  );

  it('has its own error shape', async () => {
    const response = await post(`${gateway.url}/v1/chat/completions`, key, {
      model: 'scripted',
      messages: [{ role: 'user', content: scriptText([{ error: { status: 429, message: 'slow down' } }]) }],
    });
    expect(response.status).toBe(429);
    const body = (await response.json()) as Record<string, unknown>;
    expect(body).not.toHaveProperty('type');
    expect(body).toMatchObject({ error: { code: null, message: 'slow down', param: null } });
  });
});

describe('on responses', () => {
  const tools = [
    { type: 'function', name: 'exec_command', parameters: {} },
    { type: 'custom', name: 'apply_patch' },
    { type: 'namespace', name: 'mcp__srv', tools: [{ type: 'function', name: 'lookup' }] },
  ];

  it('counts the items of one call as one assistant message', async () => {
    const steps = [
      {
        thinking: 'hm',
        text: 'a',
        tools: [
          { name: 'exec_command', input: { cmd: 'ls' } },
          { name: 'apply_patch', input: { input: '*** patch' } },
        ],
      },
      { tools: [{ name: 'lookup', input: { q: '{{lastToolResult}}' } }] },
    ];
    const user = { type: 'message', role: 'user', content: [{ type: 'input_text', text: scriptText(steps) }] };
    const first = (await (await responses({ input: [user], tools })).json()) as { output: { call_id: string }[] };
    expect(first.output).toMatchObject([
      { type: 'reasoning' },
      { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'a' }] },
      { type: 'function_call', name: 'exec_command', arguments: '{"cmd":"ls"}' },
      { type: 'custom_tool_call', name: 'apply_patch', input: '*** patch' },
    ]);
    const results = [
      { type: 'function_call_output', call_id: first.output[2]?.call_id, output: 'one' },
      { type: 'custom_tool_call_output', call_id: first.output[3]?.call_id, output: 'two' },
    ];
    const second = await (await responses({ input: [user, ...first.output, ...results], tools })).json();
    expect(second).toMatchObject({
      output: [{ type: 'function_call', name: 'lookup', namespace: 'mcp__srv', arguments: '{"q":"two"}' }],
    });
  });

  it('streams events in order with growing sequence numbers, and is metered', async () => {
    const step = { text: 'abc', chunks: 3, usage: { input: 5, output: 6, cacheRead: 7 } };
    const text = await (await responses({ input: scriptText([step]), stream: true })).text();
    const events = [...text.matchAll(/^data: (.*)$/gm)].map(
      (match) => JSON.parse(match[1] ?? '') as Record<string, unknown>,
    );
    expect(events.map((event) => event['sequence_number'])).toEqual(events.map((_, index) => index));
    expect(events.map((event) => event['type'])).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      ...Array.from({ length: 3 }, () => 'response.output_text.delta'),
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    expect(await rowOf('responses', 6)).toMatchObject({
      input_tokens: 5,
      output_tokens: 6,
      cache_read_tokens: 7,
    });
  });

  it('reports a cut stream as an error event', async () => {
    const text = await (
      await responses({ input: scriptText([{ text: 'abc', chunks: 3, cutAfterChunks: 1 }]), stream: true })
    ).text();
    const last = JSON.parse(text.trimEnd().split('\n').at(-1)?.slice(6) ?? '') as Record<string, unknown>;
    expect(last).toMatchObject({ type: 'error', code: 'provider_unavailable' });
  });
});

describe('script blocks', () => {
  it.each([
    ['```script\n[1]\n```', '[1]'],
    ['~~~ script\n[1]\n~~~', '[1]'],
    ['````script\n```\n````', '```'],
    ['```script\r\n[1]\r\n```\r\n', '[1]'],
    ['```script\n[1]\n```\nand\n```script\n[2]\n```', '[2]'],
    ['```js\n```script\n[1]\n```', undefined],
    ['```scripts\n[1]\n```', undefined],
    ['```script\n[1]', undefined],
    ['use ```script``` inline', undefined],
  ])('%j', (text, block) => {
    expect(findScriptBlock(text)).toBe(block);
  });
});
