import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';

type Json = Record<string, unknown>;

/** What an answer turned out to be, gathered from its JSON or from the events of its stream. */
interface Findings {
  /** Every reason for which it stopped. */
  stops: string[];
  callsTools: boolean;
  isWhole: boolean;
}

const GOOD_STOPS: ReadonlySet<string> = new Set(['end_turn', 'stop_sequence', 'stop', 'completed']);
const TOOL_STOPS: ReadonlySet<string> = new Set(['tool_use', 'tool_calls', 'function_call']);
const PLAIN_BLOCKS: ReadonlySet<string> = new Set(['text', 'thinking', 'redacted_thinking', 'message', 'reasoning']);
/** Calls that the caller runs. What a provider runs by itself has happened, and must not be told as if it did again. */
const CALLER_TOOLS: ReadonlySet<string> = new Set(['tool_use', 'function_call']);

/**
 * The bytes to give for the same request again, with usage zero: what is given again costs nothing. Undefined for an answer
 * that must not be: an error, a truncated or refused one, or one that calls tools where that is not wanted.
 */
export function replayable(
  answer: { protocol: Protocol; isStream: boolean; body: Buffer },
  toolCalls: boolean,
): Buffer | undefined {
  const findings: Findings = { stops: [], callsTools: false, isWhole: false };
  const text = answer.body.toString('utf8');
  const body = answer.isStream
    ? readStream(answer.protocol, text, findings)
    : readWhole(answer.protocol, text, findings);
  const isGood = findings.stops.every((stop) => GOOD_STOPS.has(stop) || (toolCalls && TOOL_STOPS.has(stop)));
  if (body === undefined || !findings.isWhole || findings.stops.length === 0 || !isGood) return undefined;
  return findings.callsTools && !toolCalls ? undefined : Buffer.from(body);
}

function readWhole(protocol: Protocol, text: string, findings: Findings): string | undefined {
  const body = parse(text);
  if (body === undefined || isObject(body['error'])) return undefined;
  findings.isWhole = true;
  switch (protocol) {
    case 'messages':
      noteStop(findings, body['stop_reason']);
      noteBlocks(findings, body['content']);
      break;
    case 'chat':
      for (const choice of listOf(body['choices'])) {
        noteStop(findings, choice['finish_reason']);
        noteChatTools(findings, choice['message']);
      }
      break;
    case 'responses':
      noteStop(findings, body['status']);
      noteBlocks(findings, body['output']);
      break;
    case 'gemini':
      noteCandidates(findings, body);
      break;
    default:
      return assertNever(protocol);
  }
  return JSON.stringify(withoutUsage(body));
}

/** Every line stays as it is but those that tell usage. */
function readStream(protocol: Protocol, text: string, findings: Findings): string | undefined {
  const lines: string[] = [];
  for (const line of text.split('\n')) {
    const data = line.startsWith('data:') ? line.slice(5).trim() : undefined;
    if (data === undefined || data === '[DONE]') {
      if (data !== undefined) findings.isWhole = true;
      lines.push(line);
      continue;
    }
    const event = parse(data);
    if (event === undefined || event['type'] === 'error' || isObject(event['error'])) return undefined;
    noteEvent(protocol, event, findings);
    lines.push(/"usage(Metadata)?"/.test(data) ? `data: ${JSON.stringify(withoutUsage(event))}` : line);
  }
  return lines.join('\n');
}

function noteEvent(protocol: Protocol, event: Json, findings: Findings): void {
  switch (protocol) {
    case 'messages':
      if (event['type'] === 'content_block_start') noteBlocks(findings, [event['content_block']]);
      if (event['type'] === 'message_delta' && isObject(event['delta'])) {
        noteStop(findings, event['delta']['stop_reason']);
      }
      if (event['type'] === 'message_stop') findings.isWhole = true;
      return;
    case 'chat':
      for (const choice of listOf(event['choices'])) {
        if (typeof choice['finish_reason'] === 'string') noteStop(findings, choice['finish_reason']);
        noteChatTools(findings, choice['delta']);
      }
      return;
    case 'responses': {
      const { response } = event;
      if (!isObject(response) || !/^response\.(completed|incomplete|failed)$/.test(String(event['type']))) return;
      findings.isWhole = true;
      noteStop(findings, response['status']);
      noteBlocks(findings, response['output']);
      return;
    }
    case 'gemini':
      noteCandidates(findings, event);
      if (findings.stops.length > 0) findings.isWhole = true;
      return;
    default:
      assertNever(protocol);
  }
}

function noteStop(findings: Findings, reason: unknown): void {
  findings.stops.push(typeof reason === 'string' ? reason : 'none');
}

function noteBlocks(findings: Findings, blocks: unknown): void {
  for (const { type } of listOf(blocks)) {
    const name = String(type);
    if (CALLER_TOOLS.has(name)) findings.callsTools = true;
    else if (!PLAIN_BLOCKS.has(name)) findings.stops.push(`block ${name}`);
  }
}

function noteChatTools(findings: Findings, message: unknown): void {
  if (!isObject(message)) return;
  const calls = message['tool_calls'] ?? message['function_call'];
  if (Array.isArray(calls) ? calls.length > 0 : isObject(calls)) findings.callsTools = true;
}

/** What a piece of Gemini's answer, or all of it, says. Code that Google runs is no plain part. */
function noteCandidates(findings: Findings, piece: Json): void {
  if (isObject(piece['promptFeedback'])) findings.stops.push('prompt feedback');
  for (const candidate of listOf(piece['candidates'])) {
    const reason = candidate['finishReason'];
    if (typeof reason === 'string') noteStop(findings, reason === 'STOP' ? 'stop' : reason);
    for (const part of listOf(isObject(candidate['content']) ? candidate['content']['parts'] : [])) {
      if (isObject(part['functionCall'])) findings.callsTools = true;
      else if (typeof part['text'] !== 'string') findings.stops.push('part');
    }
  }
}

/** The object with every number in a `usage` of it, or of what it holds directly, set to zero. */
function withoutUsage(value: Json): Json {
  const out: Json = { ...value };
  for (const name of ['usage', 'usageMetadata']) if (isObject(out[name])) out[name] = zero(out[name]);
  for (const name of ['message', 'response']) {
    const inner = out[name];
    if (isObject(inner) && isObject(inner['usage'])) out[name] = { ...inner, usage: zero(inner['usage']) };
  }
  return out;
}

function zero(value: unknown): unknown {
  if (typeof value === 'number') return 0;
  if (Array.isArray(value)) return value.map(zero);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, zero(inner)]));
}

function parse(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function listOf(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
