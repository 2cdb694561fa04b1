import { createHash } from 'node:crypto';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { OWN_MCP_SERVER } from '../../../contracts/mcp.ts';
import type { HarnessSpec } from '../port.ts';
import { CodexRequestError, type CodexConnection } from './connection.ts';
import type { CodexTurn, ThreadAnswer, TurnsPage } from './protocol.ts';

/** Name of our gateway in the thread's configuration, and of our tools. */
const PROVIDER = 'longhaul';
/** Longer than anybody is kept waiting for an approval before the turn is parked, and than a command may run. */
const TOOL_TIMEOUT_S = 24 * 60 * 60;
/** Codex's own prompt speaks of tools that are not there. */
const PLAIN_PROMPT = 'You are an agent. Act only through the tools you are given.';
/** JSON-RPC: not the request is wrong. */
const INTERNAL_ERROR = -32_603;
const PAGE_TURNS = 10;
const MAX_PAGES = 20;

/** What a thread is started and resumed with; nothing of it is kept on disk, so it is given each time. */
export function threadParams(spec: HarnessSpec): Record<string, unknown> {
  return {
    cwd: spec.cwd,
    modelProvider: PROVIDER,
    // Our tools are judged by the platform; codex has no others to ask for.
    approvalPolicy: 'never',
    sandbox: 'read-only',
    baseInstructions: spec.systemPrompt ?? PLAIN_PROMPT,
    config: {
      [`model_providers.${PROVIDER}`]: {
        name: 'Longhaul',
        base_url: `${spec.model.baseUrl}/v1`,
        wire_api: 'responses',
        experimental_bearer_token: spec.model.key,
        request_max_retries: 2,
        stream_max_retries: 2,
      },
      ...Object.fromEntries(
        spec.mcpServers.map(({ name, url, headers }) => [
          `mcp_servers.${name}`,
          {
            url,
            http_headers: headers,
            // The platform asks; a question of the harness's own would come on top.
            default_tools_approval_mode: 'approve',
            tool_timeout_sec: TOOL_TIMEOUT_S,
            startup_timeout_sec: 60,
            // A model without its hands would only talk.
            required: name === OWN_MCP_SERVER,
          },
        ]),
      ),
      shell_environment_policy: { inherit: 'none' },
    },
  };
}

/** Tells whether a loaded thread has the keys of today. */
export function digestOf(params: Record<string, unknown>): string {
  return createHash('sha256').update(JSON.stringify(params)).digest('hex');
}

/** A thread as it is found or made, and whether a turn of it runs. */
export interface OpenedThread {
  threadId: string;
  rolloutPath: string | null;
  isRunning: boolean;
}

export async function startThread(
  connection: CodexConnection,
  spec: HarnessSpec,
  params: Record<string, unknown>,
): Promise<OpenedThread> {
  const started = opened(await connection.request<ThreadAnswer>('thread/start', { ...params, environments: [] }));
  // A thread is on disk from its first message or its name on: with a name it can be found again before the message.
  await connection.request('thread/name/set', { threadId: started.threadId, name: spec.sessionId });
  return started;
}

/**
 * Finds the thread again: running, loaded or on disk. undefined when there is none. A loaded thread keeps the
 * configuration it was loaded with, so one that is idle is loaded anew unless `isCurrent`.
 */
export async function resumeThread(
  connection: CodexConnection,
  threadId: string,
  params: Record<string, unknown>,
  isCurrent: boolean,
): Promise<OpenedThread | undefined> {
  const resume = async (): Promise<OpenedThread> =>
    opened(await connection.request<ThreadAnswer>('thread/resume', { ...params, threadId, excludeTurns: true }));
  try {
    const found = await resume();
    if (found.isRunning || isCurrent) return found;
    await connection.request('thread/unsubscribe', { threadId });
    return await resume();
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw refused(error);
  }
}

/** Turns from the newest on, up to the first one that `isLast`. */
export async function newestTurns(
  connection: CodexConnection,
  threadId: string,
  isLast: (turn: CodexTurn) => boolean,
): Promise<CodexTurn[]> {
  const turns: CodexTurn[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const answer: TurnsPage = await connection.request<TurnsPage>('thread/turns/list', {
      threadId,
      cursor,
      limit: PAGE_TURNS,
      sortDirection: 'desc',
      itemsView: 'full',
    });
    for (const turn of answer.data) {
      turns.push(turn);
      if (isLast(turn)) return turns;
    }
    if (answer.nextCursor === null) return turns;
    cursor = answer.nextCursor;
  }
  return turns;
}

/** Ends a turn that runs; with `forget` the thread is gone for good. Repeatable. */
export async function endThread(connection: CodexConnection, threadId: string, forget: boolean): Promise<void> {
  try {
    const { thread } = await connection.request<ThreadAnswer>('thread/read', { threadId, includeTurns: false });
    if (thread.status.type === 'active') {
      const [last] = await newestTurns(connection, threadId, () => true);
      if (last?.status === 'inProgress') await connection.request('turn/interrupt', { threadId, turnId: last.id });
    }
    if (forget) await connection.request('thread/delete', { threadId });
  } catch (error) {
    if (!isNotFound(error)) throw refused(error);
  }
}

function isNotFound(error: unknown): boolean {
  return error instanceof CodexRequestError && /no rollout found|not found|not loaded/i.test(error.message);
}

/** What codex refuses it refuses again; a lost connection or tools that do not answer may be tried again. */
export function refused(error: unknown): unknown {
  if (!(error instanceof CodexRequestError)) return error;
  const tools = /required MCP servers failed to initialize: ([\w-]+)/.exec(error.message);
  if (tools !== null) {
    return new LonghaulError('harness_unavailable', `codex got no tools from ${tools[1]}`, { cause: error });
  }
  const code = error.code === INTERNAL_ERROR ? 'harness_unavailable' : 'harness_invalid';
  return new LonghaulError(code, `codex refused: ${error.message.slice(0, 300)}`, { cause: error });
}

function opened({ thread }: ThreadAnswer): OpenedThread {
  return { threadId: thread.id, rolloutPath: thread.path, isRunning: thread.status.type === 'active' };
}
