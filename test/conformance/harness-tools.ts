import { spawn, type ChildProcess } from 'node:child_process';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { z } from 'zod';
import type { PermissionAnswer, PermissionRequest, ToolAnswer } from '../../activities/harness/port.ts';
import { listen, stop } from '../gateway/support.ts';

/** Decides about a call, whichever way it came: as a permission, over MCP, or as a call back. */
export type Gate = (call: PermissionRequest) => Promise<PermissionAnswer>;

/** What a session's tools stand on. */
export interface ToolPlace {
  cwd: string;
  gate: Gate;
  /** The gate said `park`: the turn's host has to say so to the driver. */
  park(): void;
}

/**
 * A double of the api's MCP endpoint: `bash` behind the session's gate, run in the session's folder. It speaks real MCP
 * over HTTP; the token in the header says whose call it is.
 */
export class ToolServer {
  url = '';
  /** Tokens that were sent with requests; empty for none. */
  readonly tokens = new Set<string>();
  /** What harnesses told with calls, beside their arguments. */
  readonly told: Record<string, unknown>[] = [];
  readonly #places = new Map<string, ToolPlace>();
  readonly #sessionOf: (token: string) => Promise<string | undefined>;
  readonly #children = new Set<ChildProcess>();
  readonly #server = createServer((req, res) => void this.#serve(req, res));
  #calls = 0;

  constructor(sessionOf: (token: string) => Promise<string | undefined>) {
    this.#sessionOf = sessionOf;
  }

  static async start(sessionOf: (token: string) => Promise<string | undefined>): Promise<ToolServer> {
    const tools = new ToolServer(sessionOf);
    tools.url = `${await listen(tools.#server)}/mcp`;
    return tools;
  }

  /** `name`: a token, or the session of a token that the broker made. */
  put(name: string, place: ToolPlace): void {
    this.#places.set(name, place);
  }

  async close(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL');
    await stop(this.#server);
  }

  /** One call of a tool of ours: decided, then run. Never answers a call that was parked. */
  async call(place: ToolPlace, tool: string, input: Record<string, unknown>): Promise<ToolAnswer | { parked: true }> {
    this.#calls += 1;
    const answer = await place.gate({ callId: `tool-${this.#calls}`, tool, input });
    if (answer.decision === 'park') {
      place.park();
      return { parked: true };
    }
    if (answer.decision === 'deny') return { content: [{ type: 'text', text: answer.message }], isError: true };
    return {
      content: [{ type: 'text', text: await this.#run(place.cwd, String(answer.input['command'])) }],
      isError: false,
    };
  }

  async #serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const token = (req.headers.authorization ?? '').replace('Bearer ', '');
    this.tokens.add(token);
    const place = this.#places.get(token) ?? this.#places.get((await this.#sessionOf(token)) ?? '');
    if (place === undefined) {
      res.writeHead(401).end();
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of req as AsyncIterable<Buffer>) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    if (body.includes('"tools/call"')) {
      this.told.push(
        (JSON.parse(body.toString()) as { params: { _meta?: Record<string, unknown> } }).params._meta ?? {},
      );
    }
    const headers = new Headers(Object.entries(req.headers).map(([name, value]) => [name, String(value)]));
    const method = req.method ?? 'GET';
    const answer = await createMcpHandler(() => this.#mcp(place)).fetch(
      new Request(new URL(req.url ?? '/', this.url), { method, headers, ...(body.length === 0 ? {} : { body }) }),
    );
    res.writeHead(answer.status, Object.fromEntries(answer.headers));
    res.on('close', () => void answer.body?.cancel().catch(() => undefined));
    for await (const chunk of answer.body ?? []) res.write(chunk);
    res.end();
  }

  #mcp(place: ToolPlace): McpServer {
    const server = new McpServer({ name: 'longhaul', version: '1' });
    server.registerTool(
      'bash',
      { description: 'Runs a command.', inputSchema: z.object({ command: z.string() }) },
      async (input) => {
        const answer = await this.call(place, 'bash', input);
        // The client is gone or will be: nobody waits for this.
        if ('parked' in answer) return new Promise<never>(() => undefined);
        return {
          content: answer.content.flatMap((block) => (block.type === 'text' ? [block] : [])),
          isError: answer.isError,
        };
      },
    );
    return server;
  }

  async #run(cwd: string, command: string): Promise<string> {
    const child = spawn('bash', ['-c', command], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#children.add(child);
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    await new Promise((resolve) => child.once('close', resolve));
    this.#children.delete(child);
    return output;
  }
}
