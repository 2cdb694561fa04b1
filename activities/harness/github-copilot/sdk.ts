import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { LonghaulError } from '../../../contracts/error-codes.ts';

/** What the driver uses of `@github/copilot-sdk` 1.0.14. It is loaded from where it was installed and never shipped. */
export interface CopilotSdk {
  CopilotClient: new (options: Record<string, unknown>) => CopilotClient;
  RuntimeConnection: { forUri(url: string, options: { connectionToken: string }): unknown };
}

export interface CopilotClient {
  start(): Promise<void>;
  stop(): Promise<unknown>;
  forceStop(): Promise<void>;
  ping(): Promise<unknown>;
  createSession(config: Record<string, unknown>): Promise<CopilotSession>;
  resumeSession(sessionId: string, config: Record<string, unknown>): Promise<CopilotSession>;
  deleteSession(sessionId: string): Promise<void>;
}

export interface CopilotSession {
  send(options: { prompt: string; attachments?: object[] }): Promise<string>;
  abort(): Promise<void>;
  getEvents(): Promise<CopilotEvent[]>;
  disconnect(): Promise<void>;
}

interface Kind<Type extends string, Data> {
  type: Type;
  id: string;
  /** Of a subagent. */
  agentId?: string;
  data: Data;
}

export interface CopilotError {
  errorType: string;
  errorCode?: string;
  message: string;
  statusCode?: number;
}

export interface CopilotUsage {
  inputTokens?: number;
  outputTokens?: number;
  cacheReadTokens?: number;
  cacheWriteTokens?: number;
}

/** Events the driver knows; others are a sign of life. */
export type CopilotEvent =
  | Kind<'user.message', { content: string }>
  | Kind<'assistant.message_delta', { messageId: string; deltaContent: string }>
  | Kind<'assistant.reasoning_delta', { reasoningId: string; deltaContent: string }>
  | Kind<'assistant.message', { messageId: string; content: string; toolRequests?: unknown[] }>
  | Kind<'assistant.reasoning', { reasoningId: string; content: string }>
  | Kind<'assistant.usage', CopilotUsage>
  | Kind<
      'tool.execution_start',
      { toolCallId: string; toolName: string; arguments?: unknown; mcpServerName?: string; mcpToolName?: string }
    >
  | Kind<'tool.execution_complete', { toolCallId: string; success: boolean; result?: { content?: string } }>
  | Kind<'model.call_failure', { statusCode?: number; errorMessage?: string }>
  | Kind<'session.error', CopilotError>
  | Kind<'session.compaction_complete', { success?: boolean; summaryContent?: string }>
  | Kind<'session.mcp_server_status_changed', { serverName: string; status: string }>
  | Kind<'session.idle' | 'session.shutdown' | 'abort' | 'assistant.turn_end', object>;

/** Loads the SDK of an installation; it is no dependency of ours. */
export async function loadSdk(packageDir: string): Promise<CopilotSdk> {
  try {
    return (await import(pathToFileURL(path.join(packageDir, 'dist', 'index.js')).href)) as CopilotSdk;
  } catch (cause) {
    throw new LonghaulError('harness_unavailable', 'the Copilot SDK cannot be loaded: install it again', { cause });
  }
}
