/** The lines of `--output-format stream-json` and of a session's transcript, as far as they are read here. */

export type Block =
  | { type: 'text'; text: string }
  | { type: 'thinking'; thinking: string }
  | { type: 'tool_use'; id: string; name: string; input: Record<string, unknown> }
  | { type: 'tool_result'; tool_use_id: string; content?: string | Part[]; is_error?: boolean }
  | { type: 'other' };

type Part = { type: string; text?: string };

interface Message {
  id?: string;
  model?: string;
  stop_reason?: string | null;
  content: string | Block[];
}

/** A message of the model, one line a block, or of the user: what was sent and results of tools. */
export interface MessageLine {
  type: 'assistant' | 'user';
  uuid: string;
  message: Message;
  parent_tool_use_id?: string | null;
  isSidechain?: boolean;
  /** Words that Claude says to itself. */
  isMeta?: boolean;
}

export interface ResultLine {
  type: 'result';
  uuid: string;
  subtype: string;
  is_error: boolean;
  stop_reason: string | null;
  terminal_reason?: string;
  api_error_status?: number | null;
  result?: string;
  errors?: string[];
  usage?: Record<string, unknown>;
  /** The messages it ends; none for what was settled before a message was taken. */
  user_message_uuids?: string[];
}

export interface StreamLine {
  type: 'stream_event';
  parent_tool_use_id?: string | null;
  event: {
    type: string;
    index?: number;
    message?: { id?: string };
    delta?: { type?: string; text?: string; thinking?: string };
  };
}

export interface SystemLine {
  type: 'system';
  subtype: string;
  uuid?: string;
  attempt?: number;
  error_status?: number | null;
  error?: string;
}

/** Only in transcripts: what the session remembers beside its messages. */
export interface AttachmentLine {
  type: 'attachment';
  attachment: { type: string; toolUseID?: string };
}

export type OutputLine = MessageLine | ResultLine | StreamLine | SystemLine | { type: 'other'; uuid?: string };
export type TranscriptLine = MessageLine | AttachmentLine | { type: 'other' };

/** undefined for what is no JSON object; programs write such lines when they are in trouble. */
export function parseLine(text: string): unknown {
  if (!text.startsWith('{')) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Blocks of a message; what was sent as a mere string is one text. */
export function blocksOf({ message }: MessageLine): Block[] {
  const { content } = message;
  return typeof content === 'string' ? [{ type: 'text', text: content }] : content;
}

/** Written by the program itself in the model's place: errors, and answers to what needs none. */
export function isSynthetic({ message }: MessageLine): boolean {
  return message.model === '<synthetic>';
}
