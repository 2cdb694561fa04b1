import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { OutlineEntry, Place } from '../../db/queries/conversation.ts';

/** Stands in the place of a result that is left out. */
export const LEFT_OUT =
  '[Left out to keep the conversation within its limits. Read or search again what is still needed.]';

/** Results up to this size always stay. */
export const SHORT_RESULT_BYTES = 500;

/**
 * From where on long tool results are kept. Older ones are left out, many at once and seldom: when the conversation has
 * grown beyond one limit, down to another far below, so that between two cuts each prompt begins as the one before it did
 * and the provider's cache holds. Follows from the record alone, and what was left out once stays left out.
 */
export function firstKept(outline: OutlineEntry[]): Place {
  let cut = 0;
  let total = 0;
  let limit: number = LIMITS.promptCutBytes;
  for (const [index, entry] of outline.entries()) {
    total += entry.bytes + entry.longBytes;
    if (total <= limit) continue;
    // The newest results have not been read yet: they stay.
    while (cut < index && total > LIMITS.promptKeptBytes) {
      total -= savedBytes(outline[cut]);
      cut += 1;
    }
    limit = Math.max(LIMITS.promptCutBytes, total + LIMITS.promptCutBytes - LIMITS.promptKeptBytes);
  }
  requireSize(
    outline.length,
    outline.reduce((sum, { mediaBytes }) => sum + mediaBytes, total),
  );
  return outline[cut] ?? { turn: 0, step: 0 };
}

function savedBytes(entry: OutlineEntry | undefined): number {
  return entry === undefined ? 0 : entry.longBytes - entry.longResults * LEFT_OUT.length;
}

function requireSize(steps: number, totalBytes: number): void {
  if (steps <= LIMITS.promptSteps && totalBytes <= LIMITS.promptBytes) return;
  const what =
    steps > LIMITS.promptSteps
      ? `more than ${LIMITS.promptSteps} steps`
      : `${totalBytes} bytes, more than ${LIMITS.promptBytes}`;
  throw new LonghaulError('conversation_too_long', `The conversation has ${what}. ${WHAT_TO_DO}`);
}

const WHAT_TO_DO =
  'Start a new session, and give it what is still needed of this one; nothing of this one is lost, its log stays.';

/** How providers say that a prompt is larger than the model's context. */
const TOO_LONG =
  /prompt is too long|context[ _](length|window|limit|size)|maximum context|input is too long|input token count|too many input tokens/i;

/** A refusal for the prompt's size, in our words; any other error as it is. */
export function asContextError(error: LonghaulError): LonghaulError {
  if (error.code !== 'provider_rejected' || !TOO_LONG.test(error.message)) return error;
  return new LonghaulError(
    'conversation_too_long',
    `The conversation is larger than the model's context (${error.message.slice(0, 300)}). Send the next message with a model of a larger context (its field "model"), or: ${WHAT_TO_DO}`,
    { cause: error },
  );
}
