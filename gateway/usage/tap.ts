import type { Usage } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';
import { NO_USAGE, normaliseUsage } from './normalise.ts';

const NEWLINE = 0x0a;
const USAGE_FIELD = Buffer.from('"usage"');
const NULL_USAGE = Buffer.from('"usage":null');
/** About what the JSON around a piece of text takes in each protocol's delta event. */
const DELTA_ENVELOPE_BYTES = 100;

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
    const body = parse(Buffer.concat(this.#chunks).toString('utf8'));
    this.#chunks = [];
    // A page of a proxy in between is no answer; one too large to keep is taken as it comes.
    this.isComplete = body !== undefined || this.#sizeBytes > LIMITS.recordedCallBytes;
    if (body?.['usage'] === undefined || body['usage'] === null) return;
    this.usage = normaliseUsage(this.#protocol, body['usage'], this.usage);
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
  #rest: Buffer[] = [];
  #restBytes = 0;
  #estimatedOutput = 0;
  #inErrorEvent = false;

  constructor(protocol: Protocol) {
    this.#protocol = protocol;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      const line = chunk.subarray(start, end);
      this.#line(this.#restBytes === 0 ? line : Buffer.concat([...this.#rest, line]));
      this.#rest = [];
      this.#restBytes = 0;
      start = end + 1;
    }
    if (start === chunk.length) return;
    this.#restBytes += chunk.length - start;
    if (this.#restBytes <= LIMITS.recordedCallBytes) this.#rest.push(chunk.subarray(start));
  }

  finish(): void {
    if (this.#restBytes > 0) this.#line(Buffer.concat(this.#rest));
    this.#rest = [];
    // Servers that imitate OpenAI leave out the last marker; their clean end of the body is the end.
    if (this.#protocol === 'chat' && this.streamError === undefined) this.isComplete = true;
    this.usage = this.usageSoFar;
  }

  get usageSoFar(): Usage {
    if (this.isFinal) return this.usage;
    return { ...this.usage, outputTokens: Math.max(this.usage.outputTokens, Math.ceil(this.#estimatedOutput)) };
  }

  #line(line: Buffer): void {
    if (line.length < 6) return;
    const start = line.toString('latin1', 0, 40);
    if (start.startsWith('event:')) this.#event(start.slice(6).trim());
    else if (start.startsWith('data:')) this.#data(line, start.slice(5).trim());
  }

  #event(name: string): void {
    this.#inErrorEvent = name === 'error' || name === 'response.failed';
    if (this.#protocol === 'messages' && name === 'message_stop') this.isComplete = true;
    if (this.#protocol === 'responses' && /^response\.(completed|incomplete)$/.test(name)) this.isComplete = true;
  }

  #data(line: Buffer, start: string): void {
    if (start === '[DONE]') {
      this.isComplete = true;
      return;
    }
    if (this.#inErrorEvent || start.startsWith('{"error"')) {
      const said = parse(line.toString('utf8', 5));
      const error = (said?.['error'] ?? (said?.['response'] as Fields | undefined)?.['error'] ?? said) as
        Fields | undefined;
      const message = error?.['message'];
      this.streamError = typeof message === 'string' ? message.slice(0, 2_000) : 'the provider reported an error';
      this.isComplete = false;
    }
    if (line.includes(USAGE_FIELD) && !line.includes(NULL_USAGE)) this.#usageEvent(parse(line.toString('utf8', 5)));
    else this.#estimatedOutput += Math.max(1, (line.length - DELTA_ENVELOPE_BYTES) / 4);
  }

  #usageEvent(event: Fields | undefined): void {
    const found = usageOf(this.#protocol, event);
    if (found === undefined) return;
    this.usage = normaliseUsage(this.#protocol, found.usage, this.usage);
    this.isReported = true;
    this.isFinal = found.isFinal;
  }
}

type Fields = Record<string, unknown>;

function usageOf(protocol: Protocol, event: Fields | undefined): { usage: unknown; isFinal: boolean } | undefined {
  const nested = (name: string): unknown => (event?.[name] as Fields | undefined)?.['usage'] ?? undefined;
  switch (protocol) {
    case 'messages': {
      if (event?.['type'] === 'message_start') return { usage: nested('message'), isFinal: false };
      return event?.['type'] === 'message_delta' ? { usage: event['usage'], isFinal: true } : undefined;
    }
    case 'chat':
      return event?.['usage'] === undefined || event['usage'] === null
        ? undefined
        : { usage: event['usage'], isFinal: true };
    case 'responses': {
      const usage = nested('response');
      return usage === undefined ? undefined : { usage, isFinal: true };
    }
    default:
      return assertNever(protocol);
  }
}

function parse(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Fields) : undefined;
  } catch {
    return undefined;
  }
}
