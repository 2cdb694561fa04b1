/** The shapes of OpenCode's v1 API, as its clients of version 1.18.33 read them. */

export interface Tokens {
  input: number;
  output: number;
  reasoning: number;
  cache: { read: number; write: number };
}

interface ModelReference {
  providerID: string;
  modelID: string;
}

export interface UserInfo {
  id: string;
  sessionID: string;
  role: 'user';
  time: { created: number };
  agent: string;
  model: ModelReference;
}

export interface MessageError {
  name: 'UnknownError' | 'MessageAbortedError' | 'MessageOutputLengthError' | 'ContextOverflowError';
  data: { message: string };
}

export interface AssistantInfo extends ModelReference {
  id: string;
  sessionID: string;
  role: 'assistant';
  time: { created: number; completed?: number };
  parentID: string;
  mode: string;
  agent: string;
  path: { cwd: string; root: string };
  cost: number;
  tokens: Tokens;
  finish?: string;
  error?: MessageError;
}

interface PartBase {
  id: string;
  sessionID: string;
  messageID: string;
}

export type ToolState =
  | { status: 'pending'; input: Record<string, unknown>; raw: string }
  | { status: 'running'; input: Record<string, unknown>; title?: string; time: { start: number } }
  | {
      status: 'completed';
      input: Record<string, unknown>;
      output: string;
      title: string;
      metadata: Record<string, unknown>;
      time: { start: number; end: number };
    }
  | {
      status: 'error';
      input: Record<string, unknown>;
      error: string;
      metadata: Record<string, unknown>;
      time: { start: number; end: number };
    };

export type TextPart = PartBase & { type: 'text'; text: string; time?: { start: number; end?: number } };
export type ToolPart = PartBase & { type: 'tool'; callID: string; tool: string; state: ToolState };
export type Part =
  | TextPart
  | ToolPart
  | (PartBase & { type: 'step-start' })
  | (PartBase & { type: 'step-finish'; reason: string; cost: number; tokens: Tokens });

export interface Message {
  info: UserInfo | AssistantInfo;
  parts: Part[];
}

export interface PermissionRequest {
  id: string;
  sessionID: string;
  permission: string;
  patterns: string[];
  metadata: Record<string, unknown>;
  always: string[];
  tool?: { messageID: string; callID: string };
}

export type Status =
  { type: 'idle' } | { type: 'busy' } | { type: 'retry'; attempt: number; message: string; next: number };

export interface Todo {
  content: string;
  status: string;
  priority: string;
}

/** One server-sent event, without its id. */
export interface WireEvent {
  type: string;
  properties: Record<string, unknown>;
}

/** The one provider its clients are shown: the gateway. */
export const PROVIDER_ID = 'longhaul';
/** Where the files of a session are, for clients that show a directory. */
export const DIRECTORY = '/workspace';
