import type { FetchLike } from '@modelcontextprotocol/client';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { EgressClient, McpMessage } from '../../egress/client.ts';
import { anyAbort } from '../../contracts/abort.ts';
import type { ActivityDeps } from '../deps.ts';

/** A request that did not come to an answer. `isSent` false: it is certain that the server did not get it. */
export class McpUnanswered extends Error {
  readonly isSent: boolean;

  constructor(reason: string, isSent: boolean) {
    super(reason);
    this.name = 'McpUnanswered';
    this.isSent = isSent;
  }
}

/** A conversation with a server, for one call or one list. */
export interface McpConnection {
  client: Client;
  /** What last went wrong on the way; the library wraps it. */
  failure(): McpUnanswered | undefined;
  close(): Promise<void>;
}

/** What went wrong on the way: the library wraps it, and the broker's absence is no fault of the server. */
interface Trouble {
  failure?: McpUnanswered;
  away?: LonghaulError;
}

interface Place {
  sessionId: string;
  server: string;
  timeoutMs: number;
}

/**
 * Opens a conversation with a server of the session's agent, through the broker: it has the address, the policy and the
 * credential. Throws `sandbox_unavailable` when the broker is away, and `sandbox_invalid` with a reason for the model.
 */
export async function connectMcp(
  { egress }: Pick<ActivityDeps, 'egress'>,
  at: Place,
  signal: AbortSignal,
): Promise<McpConnection> {
  if (egress === null)
    throw new LonghaulError('sandbox_invalid', 'MCP servers need the egress broker, and there is none');
  const trouble: Trouble = {};
  const client = new Client({ name: 'longhaul', version: '1' });
  const transport = new StreamableHTTPClientTransport(new URL('http://mcp.invalid/'), {
    fetch: throughBroker(egress, at, trouble, signal),
    reconnectionOptions: NO_RECONNECTION,
  });
  try {
    await client.connect(transport, { timeout: LIMITS.mcpListMs, signal });
  } catch (error) {
    signal.throwIfAborted();
    await transport.close().catch(() => undefined);
    if (trouble.away?.retryable === true) throw trouble.away;
    const reason = reasonOf(error, trouble.failure);
    throw new LonghaulError('sandbox_invalid', `the MCP server ${at.server} cannot be used: ${reason}`);
  }
  return {
    client,
    failure: () => trouble.failure,
    close: async () => {
      // The server may forget the conversation; that it does not answer that is nobody's trouble.
      await transport.terminateSession().catch(() => undefined);
      await client.close().catch(() => undefined);
    },
  };
}

const NO_RECONNECTION = {
  maxRetries: 0,
  initialReconnectionDelay: 1_000,
  maxReconnectionDelay: 1_000,
  reconnectionDelayGrowFactor: 1,
};

function throughBroker(egress: EgressClient, at: Place, trouble: Trouble, signal: AbortSignal): FetchLike {
  return async (_url, init = {}) => {
    const method = init.method ?? 'GET';
    // A stream of the server's own news: nobody here listens to it.
    if (method !== 'POST' && method !== 'DELETE') return new Response(null, { status: 405 });
    const message: McpMessage = {
      server: at.server,
      method,
      headers: Object.fromEntries(new Headers(init.headers)),
      body: typeof init.body === 'string' ? init.body : null,
      timeoutMs: at.timeoutMs,
    };
    const until = init.signal === undefined || init.signal === null ? signal : anyAbort([signal, init.signal]);
    const answer = await egress.mcp(at.sessionId, message, until).catch((error: unknown) => {
      if (error instanceof LonghaulError) trouble.away = error;
      trouble.failure = new McpUnanswered(error instanceof LonghaulError ? error.message : 'no answer', true);
      throw error;
    });
    if (answer.kind !== 'answered') {
      trouble.failure = new McpUnanswered(answer.reason, answer.kind === 'lost');
      throw trouble.failure;
    }
    const { status, contentType, mcpSessionId, body } = answer;
    const headers = {
      'content-type': contentType,
      ...(mcpSessionId === null ? {} : { 'mcp-session-id': mcpSessionId }),
    };
    return new Response([204, 205, 304].includes(status) ? null : body, { status, headers });
  };
}

/** For the model, and bounded: a server may answer with a whole page. */
export function reasonOf(error: unknown, failure: McpUnanswered | undefined): string {
  if (failure !== undefined) return failure.message.slice(0, 500);
  return (error instanceof Error ? error.message : 'no reason given').slice(0, 500);
}
