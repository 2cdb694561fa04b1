import type { AssistantBlock } from '../../db/queries/turns.ts';
import type { ModelAnswer } from './stream.ts';

/**
 * The answer as Postgres and canonical JSON can hold it: no NUL, no lone surrogate, no number beyond JSON. A model that
 * says such a thing must not block its session for ever.
 */
export function storable(answer: ModelAnswer): ModelAnswer {
  return { ...answer, content: answer.content.map((block) => clean(block) as AssistantBlock) };
}

function clean(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll('\0', '\uFFFD').replace(/\p{Surrogate}/gu, '\uFFFD');
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (Array.isArray(value)) return value.map(clean);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [clean(key), clean(inner)]));
}
