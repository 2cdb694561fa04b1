import { enabledMcpTools } from '../../contracts/agent-tools.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { mcpServersInUse, mcpToolName } from '../../contracts/mcp.ts';
import { listMcpListings } from '../../db/queries/mcp-listings.ts';
import type { Services } from '../services.ts';
import { answerCall } from './calls.ts';
import type { McpSurface } from './server.ts';
import type { HarnessCaller } from './session-token.ts';

/**
 * One of the agent's own servers, as the session has it: the tools its definition enables, from the record; calls are the
 * session's effects. Nothing is asked of the server from here. Throws `not_found`.
 */
export async function serverSurface(services: Services, caller: HarnessCaller, server: string): Promise<McpSurface> {
  if (!mcpServersInUse(caller.agent).includes(server)) {
    throw new LonghaulError('not_found', `the agent has no tools of an MCP server named ${server}`);
  }
  const [listing] = await listMcpListings(services.pool, caller.sessionId, [server]);
  const tools = listing === undefined ? [] : enabledMcpTools(caller.agent, listing);
  const trouble = listing?.error ?? null;
  return {
    name: server,
    ...(trouble === null ? {} : { instructions: `This server could not be asked for its tools: ${trouble}` }),
    tools: () =>
      Promise.resolve(
        tools.map(({ name, description, input_schema }) => ({ name, description, inputSchema: input_schema })),
      ),
    call: (call, signal) => {
      const tool = mcpToolName({ server, tool: call.tool });
      return answerCall(services, caller, { ...call, tool, executor: 'platform' }, signal);
    },
  };
}
