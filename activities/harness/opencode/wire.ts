/** What we read of OpenCode's answers and events (1.18.33). */

export interface OpenError {
  name: string;
  data?: { message?: string; statusCode?: number; isRetryable?: boolean; responseBody?: string };
}

export interface OpenTokens {
  input: number;
  output: number;
  reasoning: number;
  cache: { read: number; write: number };
}

export interface MessageInfo {
  id: string;
  sessionID: string;
  role: 'user' | 'assistant';
  parentID?: string;
  time: { created: number; completed?: number };
  finish?: string;
  error?: OpenError;
  /** Made by a compaction. */
  summary?: unknown;
}

export interface ToolState {
  status: 'pending' | 'running' | 'completed' | 'error';
  input?: Record<string, unknown>;
  output?: string;
  error?: string;
}

export type Part = { id: string; sessionID: string; messageID: string } & (
  | { type: 'text' | 'reasoning'; text: string; synthetic?: boolean; time?: { start: number; end?: number } }
  | { type: 'tool'; callID: string; tool: string; state: ToolState }
  | { type: 'step-finish'; cost: number; tokens: OpenTokens }
  | { type: 'compaction' }
  | { type: 'other' }
);

export interface Message {
  info: MessageInfo;
  parts: Part[];
}

export type SessionStatus =
  { type: 'idle' } | { type: 'busy' } | { type: 'retry'; attempt: number; message: string; next: number };

export interface SessionInfo {
  id: string;
  parentID?: string;
  title: string;
  metadata?: Record<string, unknown>;
}

export interface PermissionAsked {
  id: string;
  sessionID: string;
  permission: string;
  patterns?: string[];
  metadata?: Record<string, unknown>;
  tool?: { messageID: string; callID: string };
}

export interface Todo {
  content: string;
  status: string;
}

/** Events of sessions, as far as we listen to them. */
export type OpenEvent =
  | {
      type: 'message.part.delta';
      properties: { sessionID: string; messageID: string; partID: string; field: string; delta: string };
    }
  | { type: 'message.part.updated'; properties: { sessionID: string; part: Part } }
  | { type: 'message.updated'; properties: { sessionID: string; info: MessageInfo } }
  | { type: 'permission.asked'; properties: PermissionAsked }
  | { type: 'session.status'; properties: { sessionID: string; status: SessionStatus } }
  | { type: 'session.idle'; properties: { sessionID: string } }
  | { type: 'session.error'; properties: { sessionID?: string; error?: OpenError } }
  | { type: 'session.compacted'; properties: { sessionID: string } }
  | { type: 'session.created'; properties: { sessionID?: string; info: SessionInfo } }
  | { type: 'todo.updated'; properties: { sessionID: string; todos: Todo[] } };

/** The text of a prompt, or a file as a data URL. Never a path: OpenCode would read the file. */
export type PromptPart =
  | { id: string; type: 'text'; text: string }
  | { id: string; type: 'file'; mime: string; filename: string; url: string };
