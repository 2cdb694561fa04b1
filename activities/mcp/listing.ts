import type { Tool } from '@modelcontextprotocol/client';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { McpListing, McpTool } from '../../contracts/mcp.ts';
import { mcpServersInUse } from '../../contracts/mcp.ts';
import { storable } from '../../contracts/storable.ts';
import { listMcpListings, putMcpListing, staleMcpServers } from '../../db/queries/mcp-listings.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { within } from '../../contracts/abort.ts';
import type { ActivityDeps } from '../deps.ts';
import { redactTexts } from '../redaction.ts';
import { connectMcp, reasonOf } from './connect.ts';

const PAGES = 10;

/**
 * What the servers of the session's agent offer, from the record; servers are asked at the start of a turn, when they were
 * not asked for a while. One that does not answer keeps nobody waiting for long, and is asked again in the next turn.
 */
export async function mcpListings(
  deps: ActivityDeps,
  session: SessionForTurn,
  options: { isTurnStart: boolean },
  signal: AbortSignal,
): Promise<McpListing[]> {
  const servers = mcpServersInUse(session.agent);
  if (servers.length === 0) return [];
  if (options.isTurnStart) {
    const stale = await staleMcpServers(deps.pool, session.id, servers, LIMITS.mcpListingTtlMs);
    await Promise.all(stale.map((server) => refresh(deps, session.id, server, signal)));
  }
  return listMcpListings(deps.pool, session.id, servers);
}

async function refresh(deps: ActivityDeps, sessionId: string, server: string, signal: AbortSignal): Promise<void> {
  const startedMs = Date.now();
  try {
    const tools = await within(signal, LIMITS.mcpListMs, (until) => toolsOf(deps, sessionId, server, until));
    await putMcpListing(deps.pool, sessionId, { server, tools: storable(tools), error: null });
  } catch (error) {
    signal.throwIfAborted();
    const isLate = Date.now() - startedMs >= LIMITS.mcpListMs;
    const reason = isLate ? `no answer within ${LIMITS.mcpListMs} ms` : reasonOf(error, undefined);
    if (!(error instanceof LonghaulError) && !isLate)
      deps.logger.warn({ err: error, sessionId, server }, 'tools are not listed');
    const [clean = ''] = await redactTexts(deps, sessionId, [reason], signal).catch(() => ['it cannot be asked now']);
    await putMcpListing(deps.pool, sessionId, { server, tools: [], error: clean });
  }
}

async function toolsOf(deps: ActivityDeps, sessionId: string, server: string, signal: AbortSignal): Promise<McpTool[]> {
  const connection = await connectMcp(deps, { sessionId, server, timeoutMs: LIMITS.mcpListMs }, signal);
  try {
    const tools: Tool[] = [];
    let cursor: string | undefined;
    for (let page = 0; page < PAGES && tools.length < LIMITS.mcpToolsPerServer; page += 1) {
      const answer = await connection.client.listTools(cursor === undefined ? {} : { cursor }, { signal });
      tools.push(...answer.tools);
      cursor = answer.nextCursor;
      if (cursor === undefined) break;
    }
    return tools.slice(0, LIMITS.mcpToolsPerServer).flatMap(bounded);
  } finally {
    await connection.close();
  }
}

/** As it is shown to models; one that is too large is left out rather than cut. */
function bounded({ name, description, inputSchema }: Tool): McpTool[] {
  const tool: McpTool = {
    name,
    description: (description ?? '').slice(0, LIMITS.platformToolTextChars),
    input_schema: inputSchema,
  };
  const isFit = name.length > 0 && name.length <= 128 && JSON.stringify(tool).length <= LIMITS.mcpToolBytes;
  return isFit ? [tool] : [];
}
