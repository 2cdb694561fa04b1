import { Agent, request } from 'undici';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { within } from '../../../contracts/abort.ts';
import type { RunningServer } from '../host/servers.ts';
import type { Message, PermissionAsked, PromptPart, SessionInfo, SessionStatus, Todo } from './wire.ts';

/** A busy machine answers slowly, the first question to a directory above all. */
const CALL_TIMEOUT_MS = 120_000;
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

type Method = 'GET' | 'POST' | 'DELETE';

export interface Prompt {
  messageID: string;
  model: { providerID: string; modelID: string };
  agent: string;
  parts: PromptPart[];
}

/** OpenCode said no. */
export class OpenCodeRefusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = 'OpenCodeRefusal';
    this.status = status;
  }
}

/** The HTTP interface of one server, for one directory. */
export class OpenCodeApi {
  readonly server: RunningServer;
  readonly #directory: string;
  readonly #agent: Agent;

  constructor(server: RunningServer, directory: string, agent: Agent) {
    this.server = server;
    this.#directory = directory;
    this.#agent = agent;
  }

  sessions(signal: AbortSignal): Promise<SessionInfo[]> {
    return this.#ask('GET', '/session', signal);
  }

  /** Undefined when there is no such session. */
  async session(id: string, signal: AbortSignal): Promise<SessionInfo | undefined> {
    try {
      return await this.#ask<SessionInfo>('GET', `/session/${id}`, signal);
    } catch (error) {
      if (error instanceof OpenCodeRefusal && error.status === 404) return undefined;
      throw error;
    }
  }

  createSession(body: { title: string; metadata: Record<string, unknown> }, signal: AbortSignal): Promise<SessionInfo> {
    return this.#ask('POST', '/session', signal, body);
  }

  async deleteSession(id: string, signal: AbortSignal): Promise<void> {
    await this.#ask('DELETE', `/session/${id}`, signal);
  }

  messages(id: string, signal: AbortSignal): Promise<Message[]> {
    return this.#ask('GET', `/session/${id}/message`, signal);
  }

  async status(id: string, signal: AbortSignal): Promise<SessionStatus> {
    const all = await this.#ask<Record<string, SessionStatus>>('GET', '/session/status', signal);
    return all[id] ?? { type: 'idle' };
  }

  permissions(signal: AbortSignal): Promise<PermissionAsked[]> {
    return this.#ask('GET', '/permission', signal);
  }

  todos(id: string, signal: AbortSignal): Promise<Todo[]> {
    return this.#ask('GET', `/session/${id}/todo`, signal);
  }

  /** False when nobody waits for the answer any more. */
  async reply(
    requestId: string,
    body: { reply: 'once' | 'reject'; message?: string },
    signal: AbortSignal,
  ): Promise<boolean> {
    try {
      await this.#ask('POST', `/permission/${requestId}/reply`, signal, body);
      return true;
    } catch (error) {
      if (error instanceof OpenCodeRefusal && error.status === 404) return false;
      throw error;
    }
  }

  async abort(id: string, signal: AbortSignal): Promise<void> {
    await this.#ask('POST', `/session/${id}/abort`, signal);
  }

  mcpStatus(signal: AbortSignal): Promise<Record<string, { status: string; error?: string }>> {
    return this.#ask('GET', '/mcp', signal);
  }

  async connectMcp(name: string, signal: AbortSignal): Promise<void> {
    await this.#ask('POST', `/mcp/${encodeURIComponent(name)}/connect`, signal);
  }

  /** Forgets what was read of the directory's settings. */
  async dispose(signal: AbortSignal): Promise<void> {
    await this.#ask('POST', '/instance/dispose', signal);
  }

  /**
   * Sends the message and waits until its turn has ended; the same message again waits for the same turn. When the
   * connection ends the turn goes on.
   */
  prompt(id: string, body: Prompt, signal: AbortSignal): Promise<Message> {
    return this.#send('POST', `/session/${id}/message`, signal, body);
  }

  #ask<T>(method: Method, route: string, signal: AbortSignal, body?: object): Promise<T> {
    return within(signal, CALL_TIMEOUT_MS, (until) => this.#send<T>(method, route, until, body));
  }

  async #send<T>(method: Method, route: string, signal: AbortSignal, body?: object): Promise<T> {
    const url = new URL(route, this.server.endpoint);
    url.searchParams.set('directory', this.#directory);
    const answer = await request(url, {
      method,
      dispatcher: this.#agent,
      signal,
      headers: {
        authorization: authorizationOf(this.server),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await readBounded(answer.body);
    if (answer.statusCode >= 400) {
      throw new OpenCodeRefusal(answer.statusCode, `${method} ${route}: ${answer.statusCode} ${text.slice(0, 500)}`);
    }
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }
}

/** OpenCode's server wants basic auth. */
export function authorizationOf(server: { secret: string }): string {
  return `Basic ${Buffer.from(`opencode:${server.secret}`).toString('base64')}`;
}

async function readBounded(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of body) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_ANSWER_BYTES) throw new LonghaulError('harness_unavailable', 'OpenCode answered too much');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Connections of one driver; a turn may be silent for as long as its approvals take. */
export function openConnections(): Agent {
  return new Agent({ headersTimeout: 0, bodyTimeout: 0, connections: 256, keepAliveTimeout: 5_000 });
}
