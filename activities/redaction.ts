import type { ContentBlock } from '../contracts/definitions.ts';
import { listSessionCredentials } from '../db/queries/session-credentials.ts';
import { redactTokens } from '../telemetry/redact.ts';
import type { ActivityDeps } from './deps.ts';

/**
 * Texts as they may be stored: without the values of the session's credentials, which only the broker knows, and without what
 * is a secret by its shape. Throws when the broker is away, so that nothing is stored unread.
 */
export async function redactTexts(
  deps: ActivityDeps,
  sessionId: string,
  texts: readonly string[],
  signal: AbortSignal,
): Promise<string[]> {
  if (texts.every((text) => text === '')) return [...texts];
  const credentials = await listSessionCredentials(deps.pool, sessionId);
  // Without a broker nobody ever had a value.
  const known =
    credentials.length === 0 || deps.egress === null
      ? texts
      : (await deps.egress.redact(sessionId, [...texts], signal)).texts;
  const placeholders = credentials.map(({ placeholder }) => placeholder);
  return known.map((text) => redactTokens(text, placeholders));
}

/** The same for what a tool gave. */
export async function redactContent(
  deps: ActivityDeps,
  sessionId: string,
  content: readonly ContentBlock[],
  signal: AbortSignal,
): Promise<ContentBlock[]> {
  const texts = content.map((block) => (block.type === 'text' ? block.text : ''));
  const clean = await redactTexts(deps, sessionId, texts, signal);
  return content.map((block, index) => (block.type === 'text' ? { ...block, text: clean[index] ?? '' } : block));
}
