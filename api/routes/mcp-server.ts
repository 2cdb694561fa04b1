import { z } from 'zod';
import { rawEndpoint } from '../endpoint.ts';
import { answerMcp } from '../mcp/exchange.ts';
import { withinParallel } from '../mcp/parallel.ts';
import { serverSurface } from '../mcp/server-tools.ts';
import { authenticateHarness } from '../mcp/session-token.ts';

export const mcpServer = rawEndpoint({
  method: 'post',
  path: '/mcp/{mcp_server_name}',
  tag: 'Harnesses',
  summary: 'Tools of one MCP server of the agent for the harness of its session (MCP, Streamable HTTP)',
  description: 'As `/mcp`. Calls are subject to the permissions of the agent’s mcp_toolset for this server.',
  public: true,
  params: z.object({ mcp_server_name: z.string() }),
  contentType: 'text/event-stream',
  async handle({ req, res, services, params }) {
    const caller = await authenticateHarness(services.pool, req.headers, 'mcp');
    const surface = await serverSurface(services, caller, params.mcp_server_name);
    await withinParallel(caller.sessionId, () => answerMcp(req, res, surface, services.logger));
  },
});
