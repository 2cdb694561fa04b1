import type { Usage } from '../../contracts/definitions.ts';
import type { AssistantBlock } from '../../db/queries/turns.ts';

/** What one model call gave, whatever the protocol. */
export interface ModelAnswer {
  content: AssistantBlock[];
  stopReason: 'end_turn' | 'tool_use' | 'max_tokens' | 'refusal';
  usage: Usage;
}

/** Told while the answer streams; `kind` starts a new block of live text. */
export interface LiveText {
  onText(kind: 'text' | 'thinking', text: string): void;
}

export const NO_USAGE: Usage = {
  inputTokens: 0,
  cacheReadTokens: 0,
  cacheWrite5mTokens: 0,
  cacheWrite1hTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

/** Tool arguments arrive as JSON text in pieces; text that is no JSON object is kept so that the model sees its mistake. */
export function parseToolInput(text: string): Record<string, unknown> {
  if (text.trim() === '') return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Falls through: reported to the model as invalid input.
  }
  return { invalid_json: text.slice(0, 2_000) };
}

/** A string as it is; anything else a provider sends in its place counts as missing. */
export function textOr(value: unknown, fallback = ''): string {
  return typeof value === 'string' ? value : fallback;
}
