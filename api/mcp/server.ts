import type { CallToolResult, ServerContext, Tool } from '@modelcontextprotocol/server';
import { ProtocolError, ProtocolErrorCode, Server } from '@modelcontextprotocol/server';
import { LIMITS } from '../../contracts/limits.ts';

/** A tool call as it came in, before anybody knows what becomes of it. */
export interface McpCall {
  tool: string;
  input: Record<string, unknown>;
  /** The harness's own id of the call, where it tells one. */
  harnessCallId: string | undefined;
}

/** What one endpoint shows to the holder of one token. */
export interface McpSurface {
  name: string;
  instructions?: string;
  tools(): Promise<Tool[]>;
  /** Ends early with an error when `signal` does; what the call set going goes on. */
  call(call: McpCall, signal: AbortSignal): Promise<CallToolResult>;
}

/** A server for one request: it holds nothing, so any api process answers. `gone`: the client has hung up. */
export function mcpServer(surface: McpSurface, gone: AbortSignal): Server {
  const server = new Server(
    { name: surface.name, title: 'Longhaul', version: '1' },
    {
      capabilities: { tools: {} },
      ...(surface.instructions === undefined ? {} : { instructions: surface.instructions }),
    },
  );
  server.setRequestHandler('tools/list', async () => ({ tools: await surface.tools() }));
  server.setRequestHandler('tools/call', async ({ params }, context) => {
    const known = (await surface.tools()).some(({ name }) => name === params.name);
    if (!known) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `there is no tool named ${params.name}`);
    const call = { tool: params.name, input: params.arguments ?? {}, harnessCallId: harnessCallId(params._meta) };
    return whileTold(context, () => surface.call(call, gone));
  });
  return server;
}

/** Names under which harnesses tell their own id of the call; the last one is codex's. */
const CALL_ID_KEYS = ['claudecode/toolUseId', 'longhaul/callId', 'callId'];
/** A progress token is the request's number for most clients, and begins anew with each process: no id of a call. */
const MIN_ID_CHARS = 8;
const MAX_ID_CHARS = 200;

function harnessCallId(meta: Record<string, unknown> | undefined): string | undefined {
  for (const key of [...CALL_ID_KEYS, 'progressToken']) {
    const value = meta?.[key];
    if (typeof value === 'string' && value.length >= MIN_ID_CHARS && value.length <= MAX_ID_CHARS) return value;
  }
  return undefined;
}

/** Clients that count the time since they last heard something hear something, also while a person is waited for. */
async function whileTold<T>({ mcpReq }: ServerContext, work: () => Promise<T>): Promise<T> {
  const progressToken = mcpReq._meta?.progressToken;
  if (progressToken === undefined) return work();
  let progress = 0;
  const timer = setInterval(() => {
    progress += 1;
    const params = { progressToken, progress, message: 'not decided or not done yet' };
    // A client that is gone is found out by the transport.
    mcpReq.notify({ method: 'notifications/progress', params }).catch(() => undefined);
  }, LIMITS.mcpProgressMs);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}
