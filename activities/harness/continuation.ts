import type { ContentBlock } from '../../contracts/definitions.ts';
import { assertNever } from '../../contracts/states.ts';
import type { OrphanedCall } from '../../db/queries/harness-sessions.ts';

const INPUT_CHARS = 2_000;
const RESULT_CHARS = 20_000;
/** Of all results together: more would fill the model's context. */
const RESULTS_CHARS = 100_000;

/** What a harness is told that goes on with a turn it, or we, did not bring to an end. */
export function continuationOf(calls: readonly OrphanedCall[]): string {
  let leftChars = RESULTS_CHARS;
  const told = calls.flatMap((call) => {
    const text = textOf(call.result?.content ?? [], Math.min(RESULT_CHARS, leftChars));
    leftChars = Math.max(0, leftChars - text.length);
    return outcomeInWords(call, text);
  });
  const start = 'This turn was interrupted and goes on now: continue where you stopped.';
  if (told.length === 0) return start;
  return [start, 'What became of the tool calls whose results you have not seen:', ...told].join('\n\n');
}

function outcomeInWords(call: OrphanedCall, text: string): string[] {
  const what = `${call.tool} ${JSON.stringify(call.input).slice(0, INPUT_CHARS)}`;
  switch (call.state) {
    case 'succeeded':
      return [`- ${what}\n  It was run. Its result:\n${text}`];
    case 'failed':
      return [`- ${what}\n  It failed:\n${text}`];
    case 'denied':
      return [`- ${what}\n  It was not run: ${text}`];
    case 'allowed':
      return [`- ${what}\n  It is allowed now and has not been run: make the call again.`];
    case 'started':
      return [`- ${what}\n  It runs: make the same call again to get its result.`];
    case 'waiting':
    case 'unknown':
    case 'proposed':
      return [`- ${what}\n  It waits for a person: make the same call again if it is still needed.`];
    default:
      return assertNever(call.state);
  }
}

function textOf(content: readonly ContentBlock[], maxChars: number): string {
  const text = content.flatMap((block) => (block.type === 'text' ? [block.text] : [`[${block.type}]`])).join('\n');
  return text.length > maxChars ? `${text.slice(0, maxChars)}\n[… cut]` : text;
}
