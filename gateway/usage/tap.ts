import type { Usage } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';
import { findTopLevelFields } from '../routing/json-fields.ts';
import { estimateDelta } from './delta-text.ts';
import { isLastOfGemini } from './gemini.ts';
import { fieldsOf, fromBedrockMetrics, mergeUsage, NO_USAGE, normaliseUsage, type Fields } from './normalise.ts';

const NEWLINE = 0x0a;
const USAGE_FIELD = Buffer.from('"usage"');
const GEMINI_USAGE_FIELD = Buffer.from('"usageMetadata"');
const NULL_USAGE = Buffer.from('"usage":null');
const BEDROCK_METRICS = 'amazon-bedrock-invocationMetrics';
const BYTES_PER_TOKEN = 4;
/** Event names and the beginnings of data are read from this much of a line. */
const HEAD_BYTES = 80;

/** Listens to an answer that passes by: usage, whether the end was reached, whether the provider reported an error. */
export interface UsageTap {
  push(chunk: Buffer): void;
  /** Call once, when the body has ended. */
  finish(): void;
  readonly usage: Usage;
  /** What the answer has used up to here, output estimated where the provider has not said it yet. */
  readonly usageSoFar: Usage;
  /** True when `usage` is the provider's final word. */
  readonly isFinal: boolean;
  /** True when the provider reported anything at all. */
  readonly isReported: boolean;
  /** True once the answer is whole. */
  readonly isComplete: boolean;
  /** An error the provider put into the stream. */
  readonly streamError: string | undefined;
}

/** The tap for an answer of this kind. */
export function createTap(protocol: Protocol, isStream: boolean): UsageTap {
  return isStream ? new StreamTap(protocol) : new BodyTap(protocol);
}

class BodyTap implements UsageTap {
  usage: Usage = { ...NO_USAGE };
  isFinal = false;
  isComplete = false;
  readonly streamError = undefined;
  readonly #protocol: Protocol;
  #chunks: Buffer[] = [];
  #sizeBytes = 0;

  constructor(protocol: Protocol) {
    this.#protocol = protocol;
  }

  get isReported(): boolean {
    return this.isFinal;
  }

  get usageSoFar(): Usage {
    return this.usage;
  }

  push(chunk: Buffer): void {
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes <= LIMITS.recordedCallBytes) this.#chunks.push(chunk);
  }

  finish(): void {
    const body = Buffer.concat(this.#chunks);
    this.#chunks = [];
    // One too large to keep is taken as it comes.
    this.isComplete = this.#sizeBytes > LIMITS.recordedCallBytes;
    const name = this.#protocol === 'gemini' ? 'usageMetadata' : 'usage';
    const spans = this.isComplete ? undefined : findTopLevelFields(body, [name]);
    const span = spans?.get(name);
    let usage: unknown;
    if (spans !== undefined) usage = span && parse(body.toString('utf8', span.start, span.end));
    else {
      const whole = parse(body.toString('utf8'));
      // A page of a proxy in between is no answer.
      if (whole === undefined) return;
      usage = whole[name];
    }
    this.isComplete = true;
    if (usage === undefined || usage === null) return;
    this.usage = normaliseUsage(this.#protocol, mergeUsage({}, usage));
    this.isFinal = true;
  }
}

/** Parses only the few events that carry usage; every other line is looked at as bytes. */
class StreamTap implements UsageTap {
  usage: Usage = { ...NO_USAGE };
  isFinal = false;
  isReported = false;
  isComplete = false;
  streamError: string | undefined;
  readonly #protocol: Protocol;
  #said: Fields = {};
  #rest: Buffer[] = [];
  #restBytes = 0;
  #estimatedOutput = 0;
  #eventName = '';

  constructor(protocol: Protocol) {
    this.#protocol = protocol;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      this.#endLine(chunk.subarray(start, end));
      start = end + 1;
    }
    if (start === chunk.length) return;
    this.#restBytes += chunk.length - start;
    // A line that is too long is not kept, however it was cut: only its length counts.
    if (this.#restBytes > LIMITS.recordedCallBytes) this.#rest = [];
    else this.#rest.push(chunk.subarray(start));
  }

  finish(): void {
    if (this.#restBytes > 0) this.#endLine(Buffer.alloc(0));
    // Servers that imitate OpenAI leave out the last marker; their clean end of the body is the end.
    if (this.#protocol === 'chat' && this.streamError === undefined) this.isComplete = true;
    this.usage = this.usageSoFar;
  }

  get usageSoFar(): Usage {
    if (this.isFinal) return this.usage;
    return { ...this.usage, outputTokens: Math.max(this.usage.outputTokens, Math.ceil(this.#estimatedOutput)) };
  }

  #endLine(piece: Buffer): void {
    const sizeBytes = this.#restBytes + piece.length;
    if (sizeBytes > LIMITS.recordedCallBytes) this.#estimatedOutput += sizeBytes / BYTES_PER_TOKEN;
    else this.#line(this.#rest.length === 0 ? piece : Buffer.concat([...this.#rest, piece]));
    this.#rest = [];
    this.#restBytes = 0;
  }

  #line(line: Buffer): void {
    // An empty line ends an event; the next one may come without a name.
    if (line.length <= 1) this.#eventName = '';
    if (line.length < 6) return;
    const head = line.toString('latin1', 0, HEAD_BYTES);
    if (head.startsWith('event:')) this.#event(head.slice(6).trim());
    else if (head.startsWith('data:')) this.#data(line, head.slice(5).trim());
  }

  #event(name: string): void {
    this.#eventName = name;
    if (this.#protocol === 'messages' && name === 'message_stop') this.isComplete = true;
    if (this.#protocol === 'responses' && /^response\.(completed|incomplete)$/.test(name)) this.isComplete = true;
  }

  #data(line: Buffer, head: string): void {
    if (head === '[DONE]') {
      this.isComplete = true;
      return;
    }
    if (this.#protocol === 'gemini') {
      this.#geminiEvent(line, head);
      return;
    }
    if (this.#eventName === '') this.#event(/^\{"type":\s*"([\w.]+)"/.exec(head)?.[1] ?? '');
    const name = this.#eventName;
    if (name === 'error' || name === 'response.failed' || head.startsWith('{"error"')) this.#error(line);
    if (carriesUsage(this.#protocol, name, line)) this.#usageEvent(dataOf(line));
    else if (name === 'message_stop' && !this.isFinal && line.includes(BEDROCK_METRICS)) this.#bedrock(dataOf(line));
    else this.#estimatedOutput += estimateDelta(this.#protocol, name, line);
  }

  /** Each event is a piece of the answer and tells the usage up to it. */
  #geminiEvent(line: Buffer, head: string): void {
    if (head.startsWith('{"error"')) this.#error(line);
    this.#estimatedOutput += estimateDelta('gemini', '', line);
    const event = dataOf(line);
    if (isLastOfGemini(event) && this.streamError === undefined) this.isComplete = true;
    this.#usageEvent(event);
  }

  #error(line: Buffer): void {
    const said = dataOf(line);
    const error = said?.['error'] ?? fieldsOf(said?.['response'])['error'] ?? said;
    const message = fieldsOf(error)['message'];
    this.streamError = typeof message === 'string' ? message.slice(0, 2_000) : 'the provider reported an error';
    this.isComplete = false;
  }

  #usageEvent(event: Fields | undefined): void {
    const found = usageOf(this.#protocol, event);
    if (found === undefined) return;
    this.#said = mergeUsage(this.#said, found.usage);
    this.usage = normaliseUsage(this.#protocol, this.#said);
    this.isReported = true;
    this.isFinal ||= found.isFinal;
  }

  #bedrock(event: Fields | undefined): void {
    this.usage = fromBedrockMetrics(event?.[BEDROCK_METRICS]);
    this.isReported = true;
    this.isFinal = true;
  }
}

/** True for the few events worth parsing. Those of Responses that only announce repeat the whole request. */
function carriesUsage(protocol: Protocol, eventName: string, line: Buffer): boolean {
  switch (protocol) {
    case 'messages':
      return (eventName === 'message_start' || eventName === 'message_delta') && line.includes(USAGE_FIELD);
    case 'chat':
      return line.includes(USAGE_FIELD) && !line.includes(NULL_USAGE);
    case 'responses':
      return /^response\.(completed|incomplete|failed|cancelled)$/.test(eventName) && line.includes(USAGE_FIELD);
    case 'gemini':
      return line.includes(GEMINI_USAGE_FIELD);
    default:
      return assertNever(protocol);
  }
}

function usageOf(protocol: Protocol, event: Fields | undefined): { usage: unknown; isFinal: boolean } | undefined {
  const nested = (name: string): unknown => fieldsOf(event?.[name])['usage'] ?? undefined;
  switch (protocol) {
    case 'messages': {
      if (event?.['type'] === 'message_start') return { usage: nested('message'), isFinal: false };
      return event?.['type'] === 'message_delta' ? { usage: event['usage'], isFinal: true } : undefined;
    }
    case 'chat': {
      // Groq puts it beside the chunk.
      const usage = event?.['usage'] ?? nested('x_groq');
      return usage === undefined ? undefined : { usage, isFinal: true };
    }
    case 'responses': {
      const usage = nested('response');
      return usage === undefined ? undefined : { usage, isFinal: true };
    }
    case 'gemini': {
      const usage = event?.['usageMetadata'];
      return usage === undefined ? undefined : { usage, isFinal: isLastOfGemini(event) };
    }
    default:
      return assertNever(protocol);
  }
}

function dataOf(line: Buffer): Fields | undefined {
  return parse(line.toString('utf8', 5));
}

function parse(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Fields) : undefined;
  } catch {
    return undefined;
  }
}
