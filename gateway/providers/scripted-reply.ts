import { createHash } from 'node:crypto';
import type { Conversation, DeclaredTool } from './scripted-conversation.ts';
import { findScriptBlock, parseScript, type ScriptStep } from './scripted-script.ts';

/** A part of an answer, cut into the pieces it is streamed in. */
export type ReplyBlock =
  | { type: 'thinking' | 'text'; pieces: string[] }
  | {
      type: 'tool_use';
      id: string;
      name: string;
      tool: DeclaredTool;
      input: Record<string, unknown>;
      pieces: string[];
    };

export interface ReplyUsage {
  input: number;
  output: number;
  cacheRead: number;
  cacheWrite: number;
}

/** What the scripted model answers to one request: a pure function of that request. */
export interface Reply {
  /** Hex digest of the request's place in its script: seed of every id. */
  seed: string;
  /** Counted under these; `script` is `none` where no step of a script is played. */
  script: string;
  step: number;
  blocks: ReplyBlock[];
  usage: ReplyUsage;
  timing: Pick<ScriptStep, 'delayMs' | 'chunkMs' | 'cutAfterChunks'>;
  error: ScriptStep['error'];
  raw: ScriptStep['raw'];
}

/** Script name of calls that play no step. */
export const NO_SCRIPT = 'none';
const DEFAULT_CHUNKS = 5;
const QUOTE_CHARS = 200;
const BYTES_PER_TOKEN = 4;
const BEYOND_LAST: ScriptStep = { text: 'done' };

/** Finds the step that is to be played and makes the answer of it. Throws ScriptError for a script that is wrong. */
export function makeReply(conversation: Conversation, requestBytes: number): Reply {
  const { messages } = conversation;
  let at = messages.length - 1;
  let block: string | undefined;
  for (; at >= 0 && block === undefined; at -= 1) {
    const message = messages[at];
    if (message?.role === 'user') block = findScriptBlock(message.text);
  }
  const following = messages.slice(at + 1).filter((message) => message.role === 'assistant').length;
  if (block === undefined) {
    const said = messages.findLast((message) => message.role === 'user')?.text ?? '';
    const text = `[scripted model, offline] You said: "${Array.from(said).slice(0, QUOTE_CHARS).join('')}"`;
    return replyOf(conversation, requestBytes, { script: NO_SCRIPT, step: following, play: { text } });
  }
  const script = parseScript(block);
  const play = script.steps[following] ?? BEYOND_LAST;
  const isDeclared = (play.tools ?? []).every((tool) => conversation.tools.has(tool.name));
  if (isDeclared) return replyOf(conversation, requestBytes, { script: script.digest, step: following, play });
  const text = '[scripted model] short answer';
  return replyOf(conversation, requestBytes, { script: NO_SCRIPT, step: following, play: { text } });
}

function replyOf(
  conversation: Conversation,
  requestBytes: number,
  found: { script: string; step: number; play: ScriptStep },
): Reply {
  const play = withToolResult(found.play, conversation.lastToolResult);
  const seed = digestOf(`${found.script}/${found.step}/${conversation.length}`);
  const blocks = blocksOf(play, seed, conversation);
  const outputBytes = blocks.flatMap((block) => block.pieces).reduce((sum, piece) => sum + Buffer.byteLength(piece), 0);
  return {
    seed,
    script: found.script,
    step: found.step,
    blocks,
    usage: {
      input: play.usage?.input ?? Math.ceil(requestBytes / BYTES_PER_TOKEN),
      output: play.usage?.output ?? Math.max(1, Math.ceil(outputBytes / BYTES_PER_TOKEN)),
      cacheRead: play.usage?.cacheRead ?? 0,
      cacheWrite: play.usage?.cacheWrite ?? 0,
    },
    timing: play,
    error: play.error,
    raw: play.raw,
  };
}

/** `chunks` cuts the text, or where there is none the thinking, or else the first tool's input; the rest is whole. */
function blocksOf(play: ScriptStep, seed: string, conversation: Conversation): ReplyBlock[] {
  const tools = play.tools ?? [];
  const text = play.text ?? (play.thinking === undefined && tools.length === 0 ? (BEYOND_LAST.text ?? '') : undefined);
  const blocks: ReplyBlock[] = [];
  if (play.thinking !== undefined) {
    blocks.push({ type: 'thinking', pieces: cut(play.thinking, text === undefined ? play.chunks : 1) });
  }
  if (text !== undefined) blocks.push({ type: 'text', pieces: cut(text, play.chunks) });
  for (const [index, { name, input }] of tools.entries()) {
    const id = digestOf(`${seed}/${index}`).slice(0, 24);
    const isMain = blocks.length === 0;
    const pieces = cut(JSON.stringify(input), isMain ? (play.chunks ?? 1) : 1);
    blocks.push({
      type: 'tool_use',
      id,
      name,
      tool: conversation.tools.get(name) ?? { kind: 'function' },
      input,
      pieces,
    });
  }
  return blocks;
}

/** Exactly `chunks` pieces, the last ones empty when there are fewer characters. */
function cut(text: string, chunks: number | undefined): string[] {
  const characters = Array.from(text);
  const count = chunks ?? Math.max(1, Math.min(DEFAULT_CHUNKS, characters.length));
  const size = Math.max(1, Math.ceil(characters.length / count));
  return Array.from({ length: count }, (_, index) => characters.slice(index * size, (index + 1) * size).join(''));
}

function withToolResult<T>(value: T, result: string): T {
  if (typeof value === 'string') return value.replaceAll('{{lastToolResult}}', () => result) as T;
  if (Array.isArray(value)) return value.map((item: unknown) => withToolResult(item, result)) as T;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, withToolResult(item as unknown, result)]),
  ) as T;
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
