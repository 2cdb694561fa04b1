import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createMcpHandler } from '@modelcontextprotocol/server';
import type { Request as HttpRequest, Response as HttpResponse } from 'express';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { checkDepth } from '../request-json.ts';
import type { McpSurface } from './server.ts';
import { mcpServer } from './server.ts';

/** What the protocol looks at. The token is not among it: nothing behind this line sees it. */
const HEADERS = ['accept', 'content-type', 'mcp-protocol-version', 'mcp-method', 'mcp-name'];

/** Answers one POST of the Streamable HTTP transport: as JSON, or as a stream that is kept alive until there is an answer. */
export async function answerMcp(
  req: HttpRequest,
  res: HttpResponse,
  surface: McpSurface,
  logger: Logger,
): Promise<void> {
  const body: unknown = req.body;
  if (Array.isArray(body)) throw new LonghaulError('invalid_request', 'one message at a time, not a list of them');
  checkDepth(body);
  const gone = new AbortController();
  res.once('close', () => gone.abort());
  const headers = new Headers();
  for (const name of HEADERS) {
    const value = req.headers[name];
    if (typeof value === 'string') headers.set(name, value);
  }
  const handler = createMcpHandler(() => mcpServer(surface, gone.signal), {
    keepAliveMs: LIMITS.ssePingMs,
    responseMode: 'sse',
    onerror: (error) => logger.debug({ err: error }, 'an MCP request was refused'),
  });
  const request = new Request('http://longhaul.invalid/mcp', { method: 'POST', headers, signal: gone.signal });
  try {
    const answer = await handler.fetch(request, { parsedBody: body ?? null });
    res.status(answer.status);
    for (const [name, value] of answer.headers) res.setHeader(name, value);
    // At once: a client may not wait long for the head of an answer that a person has to give.
    res.flushHeaders();
    if (answer.body === null) res.end();
    else await pipeline(Readable.fromWeb(answer.body), res);
  } catch (error) {
    if (!gone.signal.aborted) throw error;
  } finally {
    await handler.close();
  }
}
