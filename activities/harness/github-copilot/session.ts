import { LIMITS } from '../../../contracts/limits.ts';
import type { HarnessSpec } from '../port.ts';

const PLAIN_PROMPT = 'You are an agent. Act only through the tools you are given.';

/** What a session is created and resumed with; its keys are kept nowhere, so they are given each time. */
export function sessionConfig(spec: HarnessSpec, model: string): Record<string, unknown> {
  return {
    clientName: 'longhaul',
    model,
    provider: providerOf(spec, model),
    workingDirectory: spec.cwd,
    systemMessage: { mode: 'replace', content: spec.systemPrompt ?? PLAIN_PROMPT },
    streaming: true,
    // Its own hands are off: the tools of our servers are all there is.
    availableTools: ['mcp:*'],
    mcpServers: Object.fromEntries(
      spec.mcpServers.map(({ name, url, headers }) => [
        name,
        { type: 'http', url, headers, tools: ['*'], timeout: LIMITS.turnWallClockMs },
      ]),
    ),
    onPermissionRequest: ({ kind }: { kind: string }) =>
      // The platform judges calls of its tools; nothing else may happen.
      kind === 'mcp' ? { kind: 'approve-once' } : { kind: 'reject', feedback: 'There is no such tool here.' },
  };
}

/** The gateway translates nothing: the wire is that of the model's maker. */
function providerOf(spec: HarnessSpec, model: string): Record<string, unknown> {
  const { baseUrl, key: apiKey } = spec.model;
  return /^(?:anthropic\/)?claude/.test(model)
    ? { type: 'anthropic', baseUrl, apiKey }
    : { type: 'openai', wireApi: 'completions', baseUrl: `${baseUrl}/v1`, apiKey };
}
