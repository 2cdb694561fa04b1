import { fieldsOf, type Fields } from './normalise.ts';

/** True for the piece of an answer after which nothing follows: a candidate has a reason to stop, or the prompt was blocked. */
export function isLastOfGemini(event: Fields | undefined): boolean {
  const candidates = event?.['candidates'];
  const ended = Array.isArray(candidates) && candidates.some((candidate) => hasText(candidate, 'finishReason'));
  return ended || hasText(event?.['promptFeedback'], 'blockReason');
}

function hasText(value: unknown, name: string): boolean {
  const text = fieldsOf(value)[name];
  return typeof text === 'string' && text !== '';
}
