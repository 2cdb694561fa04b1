import { gunzipSync, gzipSync } from 'node:zlib';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { StdioPlace } from '../host/stdio.ts';
import type { HarnessSpec } from '../port.ts';
import { configDir } from './command.ts';
import { blocksOf, isSynthetic, parseLine, type Block, type MessageLine, type TranscriptLine } from './protocol.ts';

const MAX_TRANSCRIPT_BYTES = 256 * 1024 * 1024;
/** Claude makes longer names of folders by a rule of its own. */
const MAX_FOLDER_CHARS = 200;

type ToolUse = Extract<Block, { type: 'tool_use' }>;

/** What a transcript tells of one turn. */
export interface RecordedTurn {
  /** Everything since its message, oldest first. */
  lines: MessageLine[];
  /** The call whose decision Claude waits for; it asks again when it is started. */
  deferred: ToolUse | undefined;
  /** Calls without a result that Claude will not take up again by itself. */
  lost: ToolUse[];
  /** How the model ended it. */
  stopReason: 'end_turn' | 'max_tokens' | 'refusal' | undefined;
}

/** What Claude has written down of a session. */
export class Transcript {
  readonly #lines: TranscriptLine[];

  constructor(text: string) {
    this.#lines = text.split('\n').flatMap((line) => (parseLine(line) ?? []) as TranscriptLine[]);
  }

  /** False for a file whose process died before it took a message: Claude does not find such a session. */
  get hasMessages(): boolean {
    return this.#lines.some(({ type }) => type === 'user' || type === 'assistant');
  }

  has(uuid: string): boolean {
    return this.#lines.some((line) => line.type === 'user' && line.uuid === uuid);
  }

  /** The turn of a message; undefined when Claude never wrote the message down. */
  turn(uuid: string): RecordedTurn | undefined {
    const from = this.#lines.findIndex((line) => line.type === 'user' && line.uuid === uuid);
    if (from === -1) return undefined;
    const rest = this.#lines.slice(from);
    const lines = rest.filter((line): line is MessageLine => line.type === 'user' || line.type === 'assistant');
    const deferredId = rest.findLast((line) => line.type === 'attachment' && isDeferral(line))?.attachment.toolUseID;
    const open = openCalls(lines);
    const deferred = open.find(({ id }) => id === deferredId);
    return { lines, deferred, lost: open.filter((call) => call !== deferred), stopReason: stopOf(lines) };
  }
}

function isDeferral(line: TranscriptLine): line is Extract<TranscriptLine, { type: 'attachment' }> {
  return line.type === 'attachment' && line.attachment.type === 'hook_deferred_tool';
}

/** Calls since the last message in words that have no result. */
function openCalls(lines: readonly MessageLine[]): ToolUse[] {
  const lastWords = lines.findLastIndex(
    (line) =>
      line.type === 'user' && line.isMeta !== true && blocksOf(line).every(({ type }) => type !== 'tool_result'),
  );
  const blocks = lines.slice(lastWords + 1).flatMap(blocksOf);
  const ended = new Set(blocks.flatMap((block) => (block.type === 'tool_result' ? [block.tool_use_id] : [])));
  return blocks.filter((block): block is ToolUse => block.type === 'tool_use' && !ended.has(block.id));
}

function stopOf(lines: readonly MessageLine[]): RecordedTurn['stopReason'] {
  const last = lines.at(-1);
  if (last?.type !== 'assistant' || isSynthetic(last)) return undefined;
  const { stop_reason: reason } = last.message;
  return reason === 'end_turn' || reason === 'max_tokens' || reason === 'refusal' ? reason : undefined;
}

/** The bytes Claude keeps of a session; undefined when there are none. */
async function readBytes(
  place: StdioPlace,
  spec: HarnessSpec,
  sessionId: string,
  signal: AbortSignal,
): Promise<{ path: string; content: Uint8Array } | undefined> {
  const folder = `${configDir(spec)}/projects`;
  const files = await place.readFolder(folder, MAX_TRANSCRIPT_BYTES, signal);
  const found = files.find(({ path }) => path.split('/').at(-1) === `${sessionId}.jsonl`);
  return found === undefined ? undefined : { path: `${folder}/${found.path}`, content: found.content };
}

/** What there is of a session; a file that Claude would not take is removed, so that it makes the session anew. */
export async function readTranscript(
  place: StdioPlace,
  spec: HarnessSpec,
  sessionId: string,
  signal: AbortSignal,
): Promise<Transcript | undefined> {
  const found = await readBytes(place, spec, sessionId, signal);
  if (found === undefined) return undefined;
  const transcript = new Transcript(Buffer.from(found.content).toString('utf8'));
  if (transcript.hasMessages) return transcript;
  await place.remove(found.path, signal);
  return undefined;
}

/** A session to take along, compressed; null when there is none. */
export async function packTranscript(
  place: StdioPlace,
  spec: HarnessSpec,
  sessionId: string,
  signal: AbortSignal,
): Promise<Uint8Array | null> {
  const found = await readBytes(place, spec, sessionId, signal);
  return found === undefined ? null : gzipSync(found.content);
}

/** Puts a session where Claude, started in the folder `cwd`, looks for it. `cwd` has no links in it. */
export async function unpackTranscript(
  place: StdioPlace,
  at: { spec: HarnessSpec; sessionId: string; cwd: string },
  state: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  const folder = at.cwd.replaceAll(/[^a-zA-Z0-9]/g, '-');
  if (folder.length > MAX_FOLDER_CHARS) {
    throw new LonghaulError('harness_invalid', `must be at most ${MAX_FOLDER_CHARS} characters`, { field: 'cwd' });
  }
  const content = gunzipSync(state, { maxOutputLength: MAX_TRANSCRIPT_BYTES });
  await place.writeFile(`${configDir(at.spec)}/projects/${folder}/${at.sessionId}.jsonl`, content, signal);
}
