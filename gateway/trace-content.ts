import { assertNever } from '../contracts/states.ts';
import type { Protocol } from './protocol.ts';

type Fields = Record<string, unknown>;

/** A message as the GenAI conventions write it down. */
interface Message {
  role: string;
  parts: Part[];
  finish_reason?: string;
}
type Part =
  | { type: 'text' | 'reasoning'; content: string }
  | { type: 'tool_call'; id: unknown; name: unknown; arguments: unknown }
  | { type: 'tool_call_response'; id: unknown; response: unknown }
  /** Pictures, documents and the like: only that they were there. */
  | { type: 'omitted'; modality: string };

export interface RequestContent {
  system: Part[] | undefined;
  messages: Message[];
}

/** What a request said. Undefined when it is not what its protocol says. */
export function requestContent(protocol: Protocol, body: Buffer): RequestContent | undefined {
  const request = parse(body.toString('utf8'));
  if (request === undefined) return undefined;
  switch (protocol) {
    case 'messages':
      return { system: partsIfAny(request['system']), messages: listOf(request['messages']).map(messageOf) };
    case 'chat':
      return { system: undefined, messages: listOf(request['messages']).map(messageOf) };
    case 'responses': {
      const { input } = request;
      const items = typeof input === 'string' ? [{ role: 'user', content: input }] : listOf(input);
      return { system: partsIfAny(request['instructions']), messages: items.map(itemOf) };
    }
    case 'gemini': {
      const system = request['systemInstruction'] ?? request['system_instruction'];
      return { system: partsIfAny(fieldsOf(system)['parts']), messages: listOf(request['contents']).map(contentOf) };
    }
    default:
      return assertNever(protocol);
  }
}

/** What a whole or broken answer said. */
export function answerContent(protocol: Protocol, body: Buffer): Message[] {
  const text = body.toString('utf8');
  const whole = parse(text);
  if (whole !== undefined) return [wholeAnswer(protocol, whole)];
  const events = text.split('\n').flatMap((line) => {
    const event = line.startsWith('data:') ? parse(line.slice(5)) : undefined;
    return event === undefined ? [] : [event];
  });
  switch (protocol) {
    case 'messages':
      return [streamedMessage(events)];
    case 'chat':
      return [streamedChat(events)];
    case 'responses':
      return [
        {
          role: 'assistant',
          parts: events.flatMap((event) =>
            event['type'] === 'response.output_item.done' ? itemOf(fieldsOf(event['item'])).parts : [],
          ),
        },
      ];
    case 'gemini':
      return [candidateOf(events)];
    default:
      return assertNever(protocol);
  }
}

function wholeAnswer(protocol: Protocol, answer: Fields): Message {
  switch (protocol) {
    case 'messages':
      return finished(messageOf({ role: 'assistant', ...answer }), answer['stop_reason']);
    case 'chat': {
      const choice = fieldsOf(listOf(answer['choices'])[0]);
      return finished(messageOf(fieldsOf(choice['message'])), choice['finish_reason']);
    }
    case 'responses':
      return { role: 'assistant', parts: listOf(answer['output']).flatMap((item) => itemOf(item).parts) };
    case 'gemini':
      return candidateOf([answer]);
    default:
      return assertNever(protocol);
  }
}

/** By the index a provider gave, which is any number: no array is made as long as that. */
type ByIndex<T> = Map<number, T>;

function streamedMessage(events: Fields[]): Message {
  const blocks: ByIndex<{ start: Fields; text: string; json: string }> = new Map();
  let reason: unknown;
  for (const event of events) {
    const delta = fieldsOf(event['delta']);
    const index = Number(event['index']);
    if (event['type'] === 'content_block_start') {
      blocks.set(index, { start: fieldsOf(event['content_block']), text: '', json: '' });
    }
    if (event['type'] === 'message_delta') reason = delta['stop_reason'];
    const block = blocks.get(index);
    if (event['type'] !== 'content_block_delta' || block === undefined) continue;
    block.text += textOf(delta['text']) + textOf(delta['thinking']);
    block.json += textOf(delta['partial_json']);
  }
  const content = Array.from(blocks.values(), ({ start, text, json }) => ({
    ...start,
    ...(typeof start['text'] === 'string' ? { text: start['text'] + text } : {}),
    ...(typeof start['thinking'] === 'string' ? { thinking: start['thinking'] + text } : {}),
    ...(json === '' ? {} : { input: parse(json) ?? json }),
  }));
  return finished(messageOf({ role: 'assistant', content }), reason);
}

function streamedChat(events: Fields[]): Message {
  const calls: ByIndex<{ id: unknown; function: { name: unknown; arguments: string } }> = new Map();
  let text = '';
  let reason: unknown;
  for (const event of events) {
    const choice = fieldsOf(listOf(event['choices'])[0]);
    const delta = fieldsOf(choice['delta']);
    text += textOf(delta['content']);
    reason = choice['finish_reason'] ?? reason;
    for (const piece of listOf(delta['tool_calls'])) {
      const said = fieldsOf(piece['function']);
      const index = Number(piece['index']);
      const call = calls.get(index) ?? { id: piece['id'], function: { name: said['name'], arguments: '' } };
      call.function.arguments += textOf(said['arguments']);
      calls.set(index, call);
    }
  }
  return finished(messageOf({ role: 'assistant', content: text, tool_calls: [...calls.values()] }), reason);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** A message of Anthropic's or of the chat protocol. */
function messageOf(message: Fields): Message {
  const role = typeof message['role'] === 'string' ? message['role'] : 'user';
  if (role === 'tool') {
    const { tool_call_id: id, content: response } = message;
    return { role, parts: [{ type: 'tool_call_response', id, response }] };
  }
  const calls = listOf(message['tool_calls']).map((call): Part => {
    const said = fieldsOf(call['function']);
    return { type: 'tool_call', id: call['id'], name: said['name'], arguments: said['arguments'] };
  });
  return { role, parts: [...partsOf(message['content']), ...calls] };
}

/** An item of the Responses protocol. */
function itemOf(item: Fields): Message {
  const { call_id: id, name, arguments: given, output } = item;
  switch (item['type']) {
    case 'function_call':
      return { role: 'assistant', parts: [{ type: 'tool_call', id, name, arguments: given }] };
    case 'function_call_output':
      return { role: 'tool', parts: [{ type: 'tool_call_response', id, response: output }] };
    case 'reasoning':
      return { role: 'assistant', parts: listOf(item['summary']).flatMap(partOf) };
    default:
      return messageOf(item);
  }
}

/** A content of Gemini's API. */
function contentOf(content: Fields): Message {
  const role = content['role'] === 'model' ? 'assistant' : 'user';
  return { role, parts: listOf(content['parts']).flatMap(geminiPart) };
}

function geminiPart(part: Fields): Part[] {
  const { functionCall, functionResponse, text } = part;
  if (typeof text === 'string') return [{ type: part['thought'] === true ? 'reasoning' : 'text', content: text }];
  const { id, name, args, response } = fieldsOf(functionCall ?? functionResponse);
  if (functionCall !== undefined) return [{ type: 'tool_call', id, name, arguments: args }];
  if (functionResponse !== undefined) return [{ type: 'tool_call_response', id, response }];
  return [{ type: 'omitted', modality: Object.keys(part)[0] ?? 'unknown' }];
}

/** The first candidate out of the pieces of an answer; text that came in pieces is one part. */
function candidateOf(pieces: Fields[]): Message {
  const parts: Part[] = [];
  let reason: unknown;
  for (const piece of pieces) {
    const candidate = fieldsOf(listOf(piece['candidates'])[0]);
    reason = candidate['finishReason'] ?? reason;
    for (const part of contentOf(fieldsOf(candidate['content'])).parts) {
      const last = parts.at(-1);
      if (last !== undefined && 'content' in last && 'content' in part && last.type === part.type) {
        last.content += part.content;
      } else parts.push(part);
    }
  }
  return finished({ role: 'assistant', parts }, reason);
}

function partsIfAny(content: unknown): Part[] | undefined {
  return content === undefined || content === null ? undefined : partsOf(content);
}

function partsOf(content: unknown): Part[] {
  if (typeof content === 'string') return content === '' ? [] : [{ type: 'text', content }];
  return listOf(content).flatMap(partOf);
}

function partOf(block: Fields): Part[] {
  const { type, id, name, input } = block;
  if (typeof block['text'] === 'string') return [{ type: 'text', content: block['text'] }];
  if (typeof block['thinking'] === 'string') return [{ type: 'reasoning', content: block['thinking'] }];
  if (type === 'tool_use') return [{ type: 'tool_call', id, name, arguments: input }];
  if (type === 'tool_result') {
    return [{ type: 'tool_call_response', id: block['tool_use_id'], response: partsOf(block['content']) }];
  }
  return [{ type: 'omitted', modality: typeof type === 'string' ? type : 'unknown' }];
}

function finished(message: Message, reason: unknown): Message {
  return typeof reason === 'string' ? { ...message, finish_reason: reason } : message;
}

function listOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value.map(fieldsOf) : [];
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function parse(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Fields) : undefined;
  } catch {
    return undefined;
  }
}
