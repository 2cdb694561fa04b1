import { LonghaulError } from '../../contracts/error-codes.ts';
import { parseJsonObject } from '../http.ts';
import type { Protocol } from '../protocol.ts';
import { findTopLevelFields, foldedName, listMembers, type FieldSpan } from './json-fields.ts';

/** What the gateway must know of a request body. */
export interface RequestFacts {
  model: string;
  stream: boolean;
  /** What the caller lets the model write at most, all choices together; null when it set no limit. */
  maxOutputTokens: number | null;
  /** Responses: the answer stays at the provider, as it does unless told not to. */
  isStored: boolean;
  /** Responses: the answer is made without anybody waiting for it. */
  isBackground: boolean;
  /** Responses: the answer this one goes on from. */
  previousResponseId: string | undefined;
}

const MAX_MODEL_CHARS = 256;
/** No controls and no half characters: Postgres takes neither, and what a call cost would be lost. */
const MODEL_ID = new RegExp(`^[^\\p{Cc}\\p{Cs}]{1,${MAX_MODEL_CHARS}}$`, 'u');
/** Messages, older chat, newer chat, responses: a body has the one of its protocol. */
const OUTPUT_LIMITS = ['max_tokens', 'max_completion_tokens', 'max_output_tokens'] as const;
const FACTS: readonly string[] = [
  'model',
  'stream',
  ...OUTPUT_LIMITS,
  'n',
  'store',
  'background',
  'previous_response_id',
];
/** More than any model writes: a larger number would only break the sums of others. */
const MAX_OUTPUT_TOKENS = 1_000_000_000;

/** Reads what the gateway needs, without parsing where the body's bytes allow it. */
export function readRequestFacts(body: Buffer): RequestFacts {
  const spans = findTopLevelFields(body, FACTS);
  const fields: Record<string, unknown> =
    spans?.has('model') === true
      ? Object.fromEntries(Array.from(spans, ([name, span]) => [name, valueAt(body, span)]))
      : withoutLookalikes(parseJsonObject(body));
  const model = fields['model'];
  if (typeof model !== 'string' || !MODEL_ID.test(model)) {
    throw new LonghaulError('invalid_request', 'must be the id of a model', { field: 'model' });
  }
  const previous = fields['previous_response_id'];
  return {
    model,
    stream: fields['stream'] === true,
    maxOutputTokens: outputLimitOf(fields),
    isStored: fields['store'] !== false,
    isBackground: fields['background'] === true,
    previousResponseId: typeof previous === 'string' ? previous : undefined,
  };
}

/** The largest of the limits given: whichever one the provider obeys, it writes no more than that. */
function outputLimitOf(fields: Record<string, unknown>): number | null {
  const limits = OUTPUT_LIMITS.map((name) => fields[name]).filter(
    (value): value is number => typeof value === 'number' && Number.isFinite(value) && value >= 0,
  );
  if (limits.length === 0) return null;
  const choices = fields['n'];
  const times = typeof choices === 'number' && choices > 1 ? choices : 1;
  return Math.min(Math.ceil(Math.max(...limits) * times), MAX_OUTPUT_TOKENS);
}

/** Some servers take `Model` for `model`: what is checked here must be what they read. */
function withoutLookalikes(fields: Record<string, unknown>): Record<string, unknown> {
  for (const name of Object.keys(fields)) {
    const folded = foldedName(name);
    if (folded === name || !FACTS.includes(folded)) continue;
    throw new LonghaulError('invalid_request', `is written "${folded}"`, { field: name.slice(0, MAX_MODEL_CHARS) });
  }
  return fields;
}

/** Replaces the model id; every other byte stays as the caller sent it. */
export function withModel(body: Buffer, model: string): Buffer {
  const span = findTopLevelFields(body, ['model'])?.get('model');
  if (span === undefined) return written({ ...parseJsonObject(body), model });
  return splice(body, span, JSON.stringify(model));
}

/** Chat streams report their usage only when asked to. */
export function withUsageReport(protocol: Protocol, body: Buffer, stream: boolean): Buffer {
  if (protocol !== 'chat' || !stream) return body;
  const spans = findTopLevelFields(body, ['stream_options']);
  const span = spans?.get('stream_options');
  if (spans !== undefined && span === undefined) {
    const start = body.indexOf('{') + 1;
    return splice(body, { start, end: start }, '"stream_options":{"include_usage":true},');
  }
  const whole = span === undefined ? parseJsonObject(body) : undefined;
  const options = span === undefined ? whole?.['stream_options'] : valueAt(body, span);
  const given = typeof options === 'object' && options !== null ? (options as Record<string, unknown>) : {};
  if (given['include_usage'] === true) return body;
  const asked = { ...given, include_usage: true };
  return span === undefined ? written({ ...whole, stream_options: asked }) : splice(body, span, JSON.stringify(asked));
}

/** Sets top-level fields, or removes those that are undefined; the values of all others stay byte for byte. */
export function withFields(body: Buffer, fields: Readonly<Record<string, unknown>>): Buffer {
  const members = listMembers(body);
  if (members === undefined) return written({ ...parseJsonObject(body), ...fields });
  const added = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => Buffer.from(`${JSON.stringify(name)}:${JSON.stringify(value)}`));
  const kept = members
    .filter(({ name }) => !Object.hasOwn(fields, name))
    .map(({ keyStart, end }) => body.subarray(keyStart, end));
  const pieces = [...added, ...kept].flatMap((piece, index) => (index === 0 ? [piece] : [COMMA, piece]));
  return Buffer.concat([OPEN, ...pieces, CLOSE]);
}

/** What a parser can read may be too deep to be written: that one calls itself for each level. */
function written(body: Record<string, unknown>): Buffer {
  try {
    return Buffer.from(JSON.stringify(body));
  } catch (error) {
    throw new LonghaulError('invalid_json', 'the body is nested too deeply', { cause: error });
  }
}

const [OPEN, COMMA, CLOSE] = [Buffer.from('{'), Buffer.from(','), Buffer.from('}')];

function splice(body: Buffer, { start, end }: FieldSpan, text: string): Buffer {
  return Buffer.concat([body.subarray(0, start), Buffer.from(text), body.subarray(end)]);
}

function valueAt(body: Buffer, span: FieldSpan): unknown {
  try {
    return JSON.parse(body.toString('utf8', span.start, span.end));
  } catch (error) {
    throw new LonghaulError('invalid_json', `the body is not JSON: ${(error as Error).message}`);
  }
}
