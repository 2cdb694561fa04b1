import type { Tool } from '@modelcontextprotocol/server';
import { toolDefinitions } from '../../contracts/agent-tools.ts';
import type { ToolDefinition } from '../../contracts/agent-tools.ts';
import type { AgentDefinition } from '../../contracts/definitions.ts';
import { PLATFORM_TOOLS, platformTools } from '../../contracts/platform-tools.ts';
import { READ_ONLY_TOOLS } from '../../contracts/definitions.ts';
import { isBuiltinTool } from '../../contracts/tool-inputs.ts';
import type { Services } from '../services.ts';
import { answerCall } from './calls.ts';
import type { McpSurface } from './server.ts';
import type { HarnessCaller } from './session-token.ts';

/** Our own endpoint: hands in the sandbox where the harness has none of its own, the agent's custom tools, and the platform's. */
export function sessionSurface(services: Services, caller: HarnessCaller): McpSurface {
  return {
    name: 'longhaul',
    tools: () => Promise.resolve(toolsOf(caller.agent).map(shown)),
    call: (call, signal) => answerCall(services, caller, { ...call, executor: 'platform' }, signal),
  };
}

/** In an order that never changes, so that caches of providers hold. */
function toolsOf(agent: AgentDefinition): ToolDefinition[] {
  const hasOwnHands = agent.placement === 'sandbox';
  const own = toolDefinitions(agent).filter(({ name }) => !hasOwnHands || isCustom(agent, name));
  return [...own, ...platformTools(agent).map((name) => PLATFORM_TOOLS[name])];
}

function isCustom(agent: AgentDefinition, name: string): boolean {
  return agent.tools.some((tool) => tool.type === 'custom' && tool.name === name);
}

function shown({ name, description, input_schema }: ToolDefinition): Tool {
  const readOnlyHint = isBuiltinTool(name) && READ_ONLY_TOOLS.includes(name);
  return {
    name,
    description,
    inputSchema: input_schema,
    annotations: { readOnlyHint, openWorldHint: false },
  };
}
