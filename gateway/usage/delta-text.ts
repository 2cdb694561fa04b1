import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const SPACE = 0x20;
const BYTES_PER_TOKEN = 4;

/** Fields of a delta event that hold what the model has just written. */
const TEXT_FIELDS: Readonly<Record<Protocol, readonly Buffer[]>> = {
  messages: ['"text"', '"partial_json"', '"thinking"'].map((name) => Buffer.from(name)),
  chat: ['"content"', '"reasoning_content"', '"reasoning"', '"arguments"'].map((name) => Buffer.from(name)),
  responses: ['"delta"'].map((name) => Buffer.from(name)),
  gemini: ['"text"'].map((name) => Buffer.from(name)),
};

/**
 * About how many tokens the model wrote in one event of a stream, without parsing it: the bytes of its text by four, at
 * least one. Events that repeat what was written, or say nothing new, count nothing.
 */
export function estimateDelta(protocol: Protocol, eventName: string, line: Buffer): number {
  if (!isDelta(protocol, eventName, line)) return 0;
  let textBytes = 0;
  for (const field of TEXT_FIELDS[protocol]) textBytes += stringBytes(line, field);
  return Math.max(1, textBytes / BYTES_PER_TOKEN);
}

function isDelta(protocol: Protocol, eventName: string, line: Buffer): boolean {
  switch (protocol) {
    case 'messages':
      return eventName === 'content_block_delta' && !line.includes('"signature_delta"');
    case 'chat':
    case 'gemini':
      return true;
    case 'responses':
      return eventName.endsWith('.delta');
    default:
      return assertNever(protocol);
  }
}

/** Length of the string that follows the name of a field; 0 when it is absent or no string. */
function stringBytes(line: Buffer, field: Buffer): number {
  const at = line.indexOf(field);
  if (at === -1) return 0;
  let start = at + field.length;
  while (line[start] === SPACE || line[start] === COLON) start += 1;
  if (line[start] !== QUOTE) return 0;
  let end = line.indexOf(QUOTE, start + 1);
  while (end !== -1 && line[end - 1] === BACKSLASH && isEscaped(line, end)) end = line.indexOf(QUOTE, end + 1);
  return (end === -1 ? line.length : end) - start - 1;
}

function isEscaped(line: Buffer, quote: number): boolean {
  let slashes = 0;
  while (line[quote - 1 - slashes] === BACKSLASH) slashes += 1;
  return slashes % 2 === 1;
}
