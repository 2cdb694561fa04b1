/** Answers as the vendors write them, down to the bytes. */
const named = (event: { type: string } & Record<string, unknown>): string =>
  `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
const data = (event: object): string => `data: ${JSON.stringify(event)}\n\n`;

export const TEXT = 'Grüße, 世界 🌍: "usage" is a word,\n\ndata: so is this.';
const ARGUMENTS = { city: 'Zürich', unit: 'celsius' };

interface Wire {
  model: string;
  path: string;
  whole: { text: string; tool: string; thinking: string };
  stream: { text: string; tool: string; thinking: string; error: string };
  error: (status: number) => string;
}

/** Cuts text into pieces of at most `size` characters, never inside one. */
function cut(text: string, size: number): string[] {
  const characters = Array.from(text);
  return Array.from({ length: Math.ceil(characters.length / size) }, (_, index) =>
    characters.slice(index * size, (index + 1) * size).join(''),
  );
}

const ERROR_TYPES: Record<number, string> = {
  400: 'invalid_request_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  500: 'api_error',
  529: 'overloaded_error',
};

const messageUsage = {
  input_tokens: 25,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
  cache_creation: { ephemeral_5m_input_tokens: 0, ephemeral_1h_input_tokens: 0 },
  output_tokens: 15,
  service_tier: 'standard',
};
const message = (content: object[], stop: string | null): { type: string } & Record<string, unknown> => ({
  model: 'claude-opus-5',
  id: 'msg_01',
  type: 'message',
  role: 'assistant',
  content,
  stop_reason: stop,
  stop_sequence: null,
  usage: messageUsage,
});

function messageStream(block: object, deltas: object[], stop: string): string {
  return [
    named({ type: 'message_start', message: { ...message([], null), usage: { ...messageUsage, output_tokens: 1 } } }),
    named({ type: 'content_block_start', index: 0, content_block: block }),
    'event: ping\ndata: {"type": "ping"}\n\n',
    ...deltas.map((delta) => named({ type: 'content_block_delta', index: 0, delta })),
    named({ type: 'content_block_stop', index: 0 }),
    named({
      type: 'message_delta',
      delta: { stop_reason: stop, stop_sequence: null },
      usage: { output_tokens: 15 },
    }),
    named({ type: 'message_stop' }),
  ].join('');
}

const textDeltas = cut(TEXT, 4).map((text) => ({ type: 'text_delta', text }));
export const MESSAGES: Wire = {
  model: 'claude-opus-5',
  path: '/v1/messages',
  whole: {
    text: JSON.stringify(message([{ type: 'text', text: TEXT }], 'end_turn')),
    tool: JSON.stringify(
      message([{ type: 'tool_use', id: 'toolu_01', name: 'weather', input: ARGUMENTS }], 'tool_use'),
    ),
    thinking: JSON.stringify(
      message(
        [
          { type: 'thinking', thinking: TEXT, signature: 'c2ln' },
          { type: 'text', text: 'so' },
        ],
        'end_turn',
      ),
    ),
  },
  stream: {
    text: messageStream({ type: 'text', text: '' }, textDeltas, 'end_turn'),
    tool: messageStream(
      { type: 'tool_use', id: 'toolu_01', name: 'weather', input: {} },
      cut(JSON.stringify(ARGUMENTS), 5).map((partial) => ({ type: 'input_json_delta', partial_json: partial })),
      'tool_use',
    ),
    thinking: messageStream(
      { type: 'thinking', thinking: '', signature: '' },
      [
        ...cut(TEXT, 7).map((thinking) => ({ type: 'thinking_delta', thinking })),
        { type: 'signature_delta', signature: 'c2ln' },
      ],
      'end_turn',
    ),
    error: `${messageStream({ type: 'text', text: '' }, textDeltas, 'end_turn').split('event: content_block_stop')[0] ?? ''}event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n`,
  },
  error: (status) =>
    `{"type":"error","error":{"type":"${ERROR_TYPES[status] ?? 'api_error'}","message":"It is ${status}, 世界"},"request_id":"req_double"}`,
};

const chunk = (choice: object | undefined, more: object): string =>
  data({
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1_700_000_000,
    model: 'gpt-5',
    service_tier: 'default',
    system_fingerprint: 'fp_1',
    choices: choice === undefined ? [] : [{ index: 0, ...choice, logprobs: null }],
    ...more,
  });

/** With the usage asked for, each chunk has the field and one more chunk has the numbers. */
function chatStream(deltas: object[], finish: string, hasUsage: boolean): string {
  const none = hasUsage ? { usage: null } : {};
  const usage = { prompt_tokens: 25, completion_tokens: 15, total_tokens: 40 };
  return [
    chunk(
      { delta: { role: 'assistant', content: '', refusal: null }, finish_reason: null },
      { ...none, obfuscation: 'x' },
    ),
    ...deltas.map((delta) => chunk({ delta, finish_reason: null }, { ...none, obfuscation: 'ab' })),
    chunk({ delta: {}, finish_reason: finish }, none),
    ...(hasUsage ? [chunk(undefined, { usage })] : []),
    'data: [DONE]\n\n',
  ].join('');
}

const chatBody = (reply: object, finish: string): string =>
  JSON.stringify(
    {
      id: 'chatcmpl-1',
      object: 'chat.completion',
      created: 1_700_000_000,
      model: 'gpt-5',
      choices: [{ index: 0, message: { role: 'assistant', ...reply, refusal: null }, finish_reason: finish }],
      usage: { prompt_tokens: 25, completion_tokens: 15, total_tokens: 40 },
    },
    null,
    2,
  );
const toolCall = {
  id: 'call_1',
  type: 'function',
  function: { name: 'weather', arguments: JSON.stringify(ARGUMENTS) },
};

/** Chat answers depend on whether the usage was asked for. */
export function chat(hasUsage: boolean): Wire {
  const text = chatStream(
    cut(TEXT, 4).map((content) => ({ content })),
    'stop',
    hasUsage,
  );
  return {
    model: 'gpt-5',
    path: '/v1/chat/completions',
    whole: {
      text: chatBody({ content: TEXT }, 'stop'),
      tool: chatBody({ content: null, tool_calls: [toolCall] }, 'tool_calls'),
      thinking: chatBody({ content: 'so', reasoning_content: TEXT }, 'stop'),
    },
    stream: {
      text,
      tool: chatStream(
        [
          { tool_calls: [{ index: 0, id: 'call_1', type: 'function', function: { name: 'weather', arguments: '' } }] },
          ...cut(JSON.stringify(ARGUMENTS), 5).map((piece) => ({
            tool_calls: [{ index: 0, function: { arguments: piece } }],
          })),
        ],
        'tool_calls',
        hasUsage,
      ),
      thinking: chatStream(
        cut(TEXT, 7).map((piece) => ({ reasoning_content: piece })),
        'stop',
        hasUsage,
      ),
      error: `${text.split('data: ').slice(0, 4).join('data: ')}data: {"error":{"message":"The server had an error","type":"server_error","param":null,"code":"server_error"}}\n\n`,
    },
    error: (status) =>
      `{\n  "error": {\n    "message": "It is ${status}, 世界",\n    "type": "${ERROR_TYPES[status] ?? 'server_error'}",\n    "param": null,\n    "code": "some_code"\n  }\n}`,
  };
}

const response = (status: string, output: object[]): Record<string, unknown> => ({
  id: 'resp_1',
  object: 'response',
  created_at: 1_700_000_000,
  status,
  background: false,
  error: null,
  incomplete_details: null,
  instructions: null,
  model: 'gpt-5',
  output,
  parallel_tool_calls: true,
  store: true,
  tools: [],
  usage:
    status === 'completed'
      ? {
          input_tokens: 25,
          input_tokens_details: { cached_tokens: 0 },
          output_tokens: 15,
          output_tokens_details: { reasoning_tokens: 0 },
          total_tokens: 40,
        }
      : null,
});
const textItem = (text: string, status: string): object => ({
  id: 'msg_1',
  type: 'message',
  status,
  role: 'assistant',
  content: text === '' ? [] : [{ type: 'output_text', annotations: [], logprobs: [], text }],
});
const toolItem = (text: string, status: string): object => ({
  id: 'fc_1',
  type: 'function_call',
  status,
  call_id: 'call_1',
  name: 'weather',
  arguments: text,
});
const thinkingItem = (text: string): object => ({
  id: 'rs_1',
  type: 'reasoning',
  summary: text === '' ? [] : [{ type: 'summary_text', text }],
});

interface Item {
  whole: object;
  start: object;
  /** Events between the start of the item and its end. */
  before?: object;
  delta: object;
  pieces: string[];
  after: object[];
}

function responseStream({ whole, start, before, delta, pieces, after }: Item, end?: object[]): string {
  const events = [
    { type: 'response.created', response: response('in_progress', []) },
    { type: 'response.in_progress', response: response('in_progress', []) },
    { type: 'response.output_item.added', output_index: 0, item: start },
    ...(before === undefined ? [] : [before]),
    ...pieces.map((piece) => ({ ...delta, delta: piece, obfuscation: 'q8' })),
    ...(end ?? [
      ...after,
      { type: 'response.output_item.done', output_index: 0, item: whole },
      { type: 'response.completed', response: response('completed', [whole]) },
    ]),
  ];
  return events.map((event, index) => named({ ...(event as { type: string }), sequence_number: index })).join('');
}

const inText = { item_id: 'msg_1', output_index: 0, content_index: 0 };
const textPart = (text: string): object => ({ type: 'output_text', annotations: [], logprobs: [], text });
const textEvents: Item = {
  whole: textItem(TEXT, 'completed'),
  start: textItem('', 'in_progress'),
  before: { type: 'response.content_part.added', ...inText, part: textPart('') },
  delta: { type: 'response.output_text.delta', ...inText, logprobs: [] },
  pieces: cut(TEXT, 4),
  after: [
    { type: 'response.output_text.done', ...inText, logprobs: [], text: TEXT },
    { type: 'response.content_part.done', ...inText, part: textPart(TEXT) },
  ],
};
const inCall = { item_id: 'fc_1', output_index: 0 };
const callText = JSON.stringify(ARGUMENTS);
const toolEvents: Item = {
  whole: toolItem(callText, 'completed'),
  start: toolItem('', 'in_progress'),
  delta: { type: 'response.function_call_arguments.delta', ...inCall },
  pieces: cut(callText, 5),
  after: [{ type: 'response.function_call_arguments.done', ...inCall, name: 'weather', arguments: callText }],
};
const inSummary = { item_id: 'rs_1', output_index: 0, summary_index: 0 };
const thinkingEvents: Item = {
  whole: thinkingItem(TEXT),
  start: thinkingItem(''),
  before: { type: 'response.reasoning_summary_part.added', ...inSummary, part: { type: 'summary_text', text: '' } },
  delta: { type: 'response.reasoning_summary_text.delta', ...inSummary },
  pieces: cut(TEXT, 7),
  after: [{ type: 'response.reasoning_summary_text.done', ...inSummary, text: TEXT }],
};
export const RESPONSES: Wire = {
  model: 'gpt-5',
  path: '/v1/responses',
  whole: {
    text: JSON.stringify(response('completed', [textItem(TEXT, 'completed')]), null, 2),
    tool: JSON.stringify(response('completed', [toolItem(JSON.stringify(ARGUMENTS), 'completed')]), null, 2),
    thinking: JSON.stringify(response('completed', [thinkingItem(TEXT), textItem('so', 'completed')]), null, 2),
  },
  stream: {
    text: responseStream(textEvents),
    tool: responseStream(toolEvents),
    thinking: responseStream(thinkingEvents),
    error: responseStream(textEvents, [
      { type: 'error', code: 'server_error', message: 'The server had an error', param: null },
    ]),
  },
  error: chat(false).error,
};
