import type { ContentBlock } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { LongContent } from '../../db/queries/conversation.ts';
import { listLongAnswers, listLongMessages, showAnswer, showMessage } from '../../db/queries/conversation.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { excerpt, INPUT_FOLDER, keepWhole, OUTPUT_FOLDER } from '../effects/shorten.ts';
import { forgetLease, leaseSandbox } from '../sandbox/lease.ts';
import { hasHands } from '../../contracts/agent-tools.ts';

/**
 * Long messages and long answers of clients are shown in part, as long outputs of commands are: head, tail, and where the
 * whole is. What is shown is recorded once, before the first prompt that holds it, so that every later prompt holds the
 * same. The log keeps the whole.
 */
export async function recordShown(deps: ActivityDeps, session: SessionForTurn, signal: AbortSignal): Promise<void> {
  const [messages, answers] = await Promise.all([
    listLongMessages(deps.pool, session.id, LIMITS.messageShownBytes),
    listLongAnswers(deps.pool, session.id, LIMITS.toolOutputBytes),
  ]);
  for (const { id, content } of messages) {
    const kept = { headBytes: LIMITS.messageShownHeadBytes, tailBytes: LIMITS.messageShownTailBytes };
    await showMessage(deps.pool, await shorten(deps, session, { id, content, folder: INPUT_FOLDER, ...kept }, signal));
  }
  for (const { id, content } of answers) {
    const kept = { headBytes: LIMITS.toolOutputHeadBytes, tailBytes: LIMITS.toolOutputTailBytes };
    await showAnswer(deps.pool, await shorten(deps, session, { id, content, folder: OUTPUT_FOLDER, ...kept }, signal));
  }
}

interface Whole extends LongContent {
  folder: string;
  headBytes: number;
  tailBytes: number;
}

async function shorten(
  deps: ActivityDeps,
  session: SessionForTurn,
  whole: Whole,
  signal: AbortSignal,
): Promise<LongContent> {
  const texts = whole.content.flatMap((block) => (block.type === 'text' ? [block.text] : []));
  const bytes = Buffer.from(texts.join('\n'));
  const path = `${whole.folder}/${whole.id}.txt`;
  const hasWorkspace = hasHands(session.agent) && session.environment.type === 'cloud';
  const isKept = hasWorkspace && (await keepInWorkspace(deps, session, path, bytes, signal));
  const text: ContentBlock = { type: 'text', text: excerpt(bytes, whole, isKept ? path : undefined) };
  return { id: whole.id, content: [text, ...whole.content.filter((block) => block.type !== 'text')] };
}

async function keepInWorkspace(
  deps: ActivityDeps,
  session: SessionForTurn,
  path: string,
  whole: Uint8Array,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    const leased = await leaseSandbox(deps, session, signal);
    // A sandbox that is still to be prepared is not begun for it: the log keeps the whole.
    return leased.kind === 'ready' && (await keepWhole(leased.lease, path, whole, signal));
  } catch (error) {
    if (!(error instanceof LonghaulError)) throw error;
    if (error.code !== 'sandbox_lost' && error.code !== 'sandbox_not_found') throw error;
    // Nothing had begun in it: the next attempt wakes the sandbox or makes another.
    forgetLease(deps, session.id);
    throw new LonghaulError('sandbox_unavailable', error.message, { cause: error });
  }
}
