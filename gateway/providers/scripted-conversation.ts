import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';

/** How a tool is called on the Responses protocol; elsewhere every tool is a function. */
export interface DeclaredTool {
  kind: 'function' | 'custom';
  namespace?: string;
}

/** A request in the one shape the scripted model reads. */
export interface Conversation {
  /** What people and the model said, in order; results of tools are in `lastToolResult` only. */
  messages: { role: 'user' | 'assistant'; text: string }[];
  /** Number of entries in the request, whatever their kind. */
  length: number;
  lastToolResult: string;
  tools: Map<string, DeclaredTool>;
}

type Fields = Record<string, unknown>;

/** Reads a request of any protocol. What it does not understand it passes over. */
export function readConversation(protocol: Protocol, request: Fields): Conversation {
  switch (protocol) {
    case 'messages':
      return readMessages(request);
    case 'chat':
      return readChat(request);
    case 'responses':
      return readResponses(request);
    case 'gemini':
      return readGemini(request);
    default:
      return assertNever(protocol);
  }
}

function readMessages(request: Fields): Conversation {
  const entries = list(request['messages']);
  const conversation = emptyConversation(entries.length);
  for (const entry of entries) {
    const role = entry['role'] === 'assistant' ? 'assistant' : 'user';
    conversation.messages.push({ role, text: textOf(entry['content']) });
    for (const block of list(entry['content'])) {
      if (block['type'] === 'tool_result') conversation.lastToolResult = textOf(block['content']);
    }
  }
  for (const tool of list(request['tools'])) declare(conversation, tool['name'], { kind: 'function' });
  return conversation;
}

function readChat(request: Fields): Conversation {
  const entries = list(request['messages']);
  const conversation = emptyConversation(entries.length);
  for (const entry of entries) {
    const role = entry['role'];
    if (role === 'user' || role === 'assistant') conversation.messages.push({ role, text: textOf(entry['content']) });
    if (role === 'tool') conversation.lastToolResult = textOf(entry['content']);
  }
  for (const tool of list(request['tools']))
    declare(conversation, fields(tool['function'])['name'], { kind: 'function' });
  return conversation;
}

/** On the Responses protocol one call of the model leaves several items: a run of them is one assistant message. */
function readResponses(request: Fields): Conversation {
  const input = request['input'];
  const entries = typeof input === 'string' ? [{ role: 'user', content: input }] : list(input);
  const conversation = emptyConversation(entries.length);
  let isInRun = false;
  for (const entry of entries) {
    const isModels = isModelItem(entry);
    if (isModels && !isInRun) conversation.messages.push({ role: 'assistant', text: textOf(entry['content']) });
    isInRun = isModels;
    if (entry['role'] === 'user') conversation.messages.push({ role: 'user', text: textOf(entry['content']) });
    if (String(entry['type']).endsWith('_call_output')) conversation.lastToolResult = textOf(entry['output']);
  }
  for (const tool of list(request['tools'])) {
    if (tool['type'] === 'namespace') {
      const namespace = String(tool['name']);
      for (const inner of list(tool['tools'])) declare(conversation, inner['name'], { kind: kindOf(inner), namespace });
    } else declare(conversation, tool['name'], { kind: kindOf(tool) });
  }
  return conversation;
}

/** A count of tokens may hold the request it is about. The model's pieces are one message of it. */
function readGemini(given: Fields): Conversation {
  const request = { ...fields(given['generateContentRequest']), ...given };
  const entries = list(request['contents']);
  const conversation = emptyConversation(entries.length);
  let isInRun = false;
  for (const entry of entries) {
    const isModels = entry['role'] === 'model';
    const parts = list(entry['parts']);
    const text = parts.map((part) => (typeof part['text'] === 'string' ? part['text'] : '')).join('\n');
    if (!isModels) conversation.messages.push({ role: 'user', text });
    else if (!isInRun) conversation.messages.push({ role: 'assistant', text });
    isInRun = isModels;
    for (const part of parts) {
      if (typeof part['functionResponse'] !== 'object') continue;
      const response = fields(fields(part['functionResponse'])['response']);
      const said = response['output'] ?? response['error'];
      conversation.lastToolResult = typeof said === 'string' ? said : JSON.stringify(response);
    }
  }
  for (const tool of list(request['tools'])) {
    for (const declared of list(tool['functionDeclarations'] ?? tool['function_declarations'])) {
      declare(conversation, declared['name'], { kind: 'function' });
    }
  }
  return conversation;
}

function isModelItem(entry: Fields): boolean {
  const type = entry['type'];
  return entry['role'] === 'assistant' || type === 'reasoning' || (typeof type === 'string' && type.endsWith('_call'));
}

function kindOf(tool: Fields): DeclaredTool['kind'] {
  return tool['type'] === 'custom' ? 'custom' : 'function';
}

function emptyConversation(length: number): Conversation {
  return { messages: [], length, lastToolResult: '', tools: new Map() };
}

function declare(conversation: Conversation, name: unknown, tool: DeclaredTool): void {
  if (typeof name === 'string' && !conversation.tools.has(name)) conversation.tools.set(name, tool);
}

/** Text parts only: a script in the result of a tool must not take the conversation over. */
function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  return list(content)
    .filter((part) => ['text', 'input_text', 'output_text'].includes(String(part['type'])))
    .map((part) => (typeof part['text'] === 'string' ? part['text'] : ''))
    .join('\n');
}

function list(value: unknown): Fields[] {
  return Array.isArray(value) ? value.map(fields) : [];
}

function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}
