import type { ContentBlock } from '../../contracts/definitions.ts';
import { assertNever } from '../../contracts/states.ts';
import type { OrphanedCall } from '../../db/queries/harness-sessions.ts';

const INPUT_CHARS = 2_000;
const RESULT_CHARS = 20_000;

/** What a harness is told that goes on with a turn it, or we, did not bring to an end. */
export function continuationOf(calls: readonly OrphanedCall[]): string {
  const told = calls.flatMap(outcomeInWords);
  const start = 'This turn was interrupted and goes on now: continue where you stopped.';
  if (told.length === 0) return start;
  return [start, 'What became of the tool calls whose results you have not seen:', ...told].join('\n\n');
}

function outcomeInWords(call: OrphanedCall): string[] {
  const what = `${call.tool} ${JSON.stringify(call.input).slice(0, INPUT_CHARS)}`;
  const text = textOf(call.result?.content ?? []);
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

function textOf(content: readonly ContentBlock[]): string {
  const text = content.flatMap((block) => (block.type === 'text' ? [block.text] : [`[${block.type}]`])).join('\n');
  return text.length > RESULT_CHARS ? `${text.slice(0, RESULT_CHARS)}\n[… cut]` : text;
}
