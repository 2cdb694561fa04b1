import { preToolUse, preToolUseDecision } from '../../contracts/harness-hooks.ts';
import { rawEndpoint } from '../endpoint.ts';
import { withinParallel } from '../mcp/parallel.ts';
import { judgeToolUse } from '../mcp/pre-tool-use.ts';
import { authenticateHarness } from '../mcp/session-token.ts';
import { checkDepth } from '../request-json.ts';
import { parseWith } from '../validation.ts';

export const harnessPreToolUse = rawEndpoint({
  method: 'post',
  path: '/v1/harness/hooks/pre-tool-use',
  tag: 'Harnesses',
  summary: 'Ask whether the harness of a session may use a tool (PreToolUse hook of Claude Code)',
  description:
    'The bearer token is one of a session, which the harness is given; API keys do not work here. `defer`: a person is asked; end the turn and ask again with the same `tool_use_id` when the session is resumed.',
  public: true,
  contentType: 'application/json',
  json: preToolUseDecision,
  async handle({ req, res, services }) {
    const caller = await authenticateHarness(services.pool, req.headers, 'hook');
    checkDepth(req.body);
    const asked = parseWith(preToolUse, req.body ?? {});
    const gone = new AbortController();
    res.once('close', () => gone.abort());
    const decision = await withinParallel(caller.sessionId, () => judgeToolUse(services, caller, asked, gone.signal));
    res.json(decision);
  },
});
