import { LonghaulError } from '../../contracts/error-codes.ts';
import { parseJsonObject } from '../http.ts';
import type { Protocol } from '../protocol.ts';
import { readRequestFacts, withFields, type RequestFacts } from './request.ts';

/** What Gemini's paths end with. */
export const GEMINI_VERBS = ['generateContent', 'streamGenerateContent', 'countTokens'] as const;
export type GeminiVerb = (typeof GEMINI_VERBS)[number];

/** More than any model writes. */
const MAX_OUTPUT_TOKENS = 1_000_000_000;
type Fields = Record<string, unknown>;

/**
 * A request of Gemini's API with what its path says in the body, as other protocols have it: the gateway routes by that,
 * and the provider's side takes it out again.
 */
export function withPathFields(body: Buffer, verb: GeminiVerb, model: string, search: string): Buffer {
  const isStream = verb === 'streamGenerateContent';
  if (isStream && new URLSearchParams(search).get('alt') !== 'sse') {
    throw new LonghaulError('invalid_request', 'streams come as server-sent events: ask with alt=sse', {
      field: 'alt',
    });
  }
  return withFields(body, { model, stream: isStream });
}

/** The body as the provider takes it. */
export function withoutPathFields(body: Buffer): Buffer {
  return withFields(body, { model: undefined, stream: undefined });
}

/** What the gateway must know of a body of any protocol. */
export function readFacts(protocol: Protocol, body: Buffer): RequestFacts {
  const facts = readRequestFacts(body);
  return protocol === 'gemini' ? { ...facts, maxOutputTokens: outputLimitOf(body) } : facts;
}

/** Google reads both spellings of every field. */
function outputLimitOf(body: Buffer): number | null {
  const request = parseJsonObject(body);
  const configs = [request['generationConfig'], request['generation_config']].map(fieldsOf);
  const numbers = (...names: string[]): number[] =>
    configs
      .flatMap((config) => names.map((name) => Number(config[name])))
      .filter((value) => Number.isFinite(value) && value >= 0);
  const limits = numbers('maxOutputTokens', 'max_output_tokens');
  if (limits.length === 0) return null;
  const times = Math.max(1, ...numbers('candidateCount', 'candidate_count'));
  return Math.min(Math.ceil(Math.max(...limits) * times), MAX_OUTPUT_TOKENS);
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}
