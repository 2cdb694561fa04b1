import { rawEndpoint } from '../endpoint.ts';
import { answerMcp } from '../mcp/exchange.ts';
import { withinParallel } from '../mcp/parallel.ts';
import { sessionSurface } from '../mcp/session-tools.ts';
import { authenticateHarness } from '../mcp/session-token.ts';

export const mcp = rawEndpoint({
  method: 'post',
  path: '/mcp',
  tag: 'Harnesses',
  summary: 'Tools of a session for its harness (MCP, Streamable HTTP)',
  description:
    'Stateless: each POST is one message of the Model Context Protocol. The bearer token is one of a session, which the harness is given; API keys do not work here.',
  public: true,
  contentType: 'text/event-stream',
  async handle({ req, res, services }) {
    const caller = await authenticateHarness(services.pool, req.headers, 'mcp');
    await withinParallel(caller.sessionId, () =>
      answerMcp(req, res, sessionSurface(services, caller), services.logger),
    );
  },
});
