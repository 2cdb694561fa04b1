/** The parts of the app-server's protocol (0.169.0, `codex app-server generate-ts`) that the driver reads or writes. */

export interface CodexError {
  message: string;
  codexErrorInfo: string | Record<string, { httpStatusCode?: number | null } | undefined> | null;
}

export type CodexTurnStatus = 'completed' | 'interrupted' | 'failed' | 'inProgress';

export interface CodexTurn {
  id: string;
  items: CodexItem[];
  status: CodexTurnStatus;
  error: CodexError | null;
}

interface ItemTimes {
  id: string;
  completedAtMs?: number | null;
}

/** Kinds the driver knows; others are taken as a sign of life. */
export type KnownItem =
  | { type: 'userMessage'; clientId: string | null }
  | { type: 'agentMessage'; text: string }
  | { type: 'reasoning'; summary: string[]; content: string[] }
  | {
      type: 'commandExecution';
      command: string;
      cwd: string;
      status: 'inProgress' | 'completed' | 'failed' | 'declined';
      aggregatedOutput: string | null;
      exitCode: number | null;
    }
  | {
      type: 'fileChange';
      changes: { path: string; kind: unknown; diff: string }[];
      status: 'inProgress' | 'completed' | 'failed' | 'declined';
    }
  | {
      type: 'mcpToolCall';
      server: string;
      tool: string;
      status: 'inProgress' | 'completed' | 'failed';
      arguments: unknown;
      result: { content: unknown[] } | null;
      error: { message: string } | null;
    }
  | { type: 'webSearch'; query?: string }
  | { type: 'collabAgentToolCall'; tool: string; status: string; prompt: string | null }
  | { type: 'contextCompaction' };

export type CodexItem = ItemTimes & KnownItem;

export interface TokenUsage {
  totalTokens: number;
  inputTokens: number;
  cachedInputTokens: number;
  cacheWriteInputTokens: number;
  outputTokens: number;
}

interface OfTurn {
  threadId: string;
  turnId: string;
}

/** Notifications and requests of the server that the driver acts on. */
export type ServerMessage =
  | { method: 'turn/started'; params: { threadId: string; turn: CodexTurn } }
  | { method: 'turn/completed'; params: { threadId: string; turn: CodexTurn } }
  | { method: 'item/started' | 'item/completed'; params: OfTurn & { item: CodexItem } }
  | {
      method: 'item/agentMessage/delta' | 'item/reasoning/summaryTextDelta' | 'item/reasoning/textDelta';
      params: OfTurn & { itemId: string; delta: string };
    }
  | { method: 'thread/tokenUsage/updated'; params: OfTurn & { tokenUsage: { total: TokenUsage; last: TokenUsage } } }
  | {
      method: 'turn/plan/updated';
      params: OfTurn & { plan: { step: string; status: 'pending' | 'inProgress' | 'completed' }[] };
    }
  | { method: 'error'; params: OfTurn & { error: CodexError; willRetry: boolean } }
  | {
      method:
        | 'item/commandExecution/requestApproval'
        | 'item/fileChange/requestApproval'
        | 'mcpServer/elicitation/request'
        | 'item/tool/requestUserInput';
      id: number | string;
      params: OfTurn;
    };

export interface ThreadAnswer {
  thread: { id: string; path: string | null; status: { type: 'notLoaded' | 'idle' | 'systemError' | 'active' } };
}

export interface TurnsPage {
  data: CodexTurn[];
  nextCursor: string | null;
}
