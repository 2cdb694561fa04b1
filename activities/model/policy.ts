import type { AgentDefinition } from '../../contracts/definitions.ts';
import { READ_ONLY_TOOLS } from '../../contracts/definitions.ts';
import type { PermissionPolicy, PolicyVerdict } from '../../contracts/states.ts';
import { assertNever } from '../../contracts/states.ts';
import { isBuiltinTool } from '../../contracts/tool-inputs.ts';
import { isEnabled, toolsetOf } from '../../contracts/agent-tools.ts';
import { mcpPermission, mcpPlaceOf } from '../../contracts/mcp.ts';
import type { PlatformToolName } from '../../contracts/platform-tools.ts';
import { platformTools } from '../../contracts/platform-tools.ts';

/** Part of every approval: which rules judged. */
export const POLICY_VERSION = 'permissions/1';

export interface Judgement {
  kind: 'builtin' | 'custom' | 'invalid' | 'harness' | 'platform' | 'mcp';
  verdict: PolicyVerdict;
  /** For people: which rule said so. */
  reason: string;
  policy: PermissionPolicy | null;
  idempotent: boolean;
}

/** What the agent's permissions say about one tool call. Anything not known is denied. */
export function judge(agent: AgentDefinition, tool: string): Judgement {
  const custom = agent.tools.some((entry) => entry.type === 'custom' && entry.name === tool);
  if (custom) {
    return { kind: 'custom', verdict: 'allow', reason: 'run by the client', policy: null, idempotent: false };
  }
  const platform = platformTools(agent).find((name) => name === tool);
  if (platform !== undefined) return judgePlatform(platform);
  const place = mcpPlaceOf(agent, tool);
  if (place !== undefined) {
    const permission = mcpPermission(agent, place);
    if (permission === undefined) return unknownTool(tool);
    const policy = permission.type;
    // What a server says of its own tools is no reason to trust them.
    return { kind: 'mcp', policy, idempotent: false, ...verdictOf(policy, false) };
  }
  const toolset = toolsetOf(agent);
  if (toolset === undefined || !isBuiltinTool(tool) || !isEnabled(toolset, tool)) {
    return unknownTool(tool);
  }
  const config = toolset.configs.find((entry) => entry.name === tool);
  const policy = (config?.permission_policy ?? toolset.default_config.permission_policy).type;
  const readOnly = READ_ONLY_TOOLS.includes(tool);
  return { kind: 'builtin', policy, idempotent: readOnly, ...verdictOf(policy, readOnly) };
}

function unknownTool(tool: string): Judgement {
  const reason = `the agent has no tool named ${tool}`;
  return { kind: 'invalid', verdict: 'deny', reason, policy: null, idempotent: true };
}

/** Tools of the product change nothing but its own record, and asking a person is what the last one is for. */
function judgePlatform(tool: PlatformToolName): Judgement {
  const shared = { kind: 'platform' as const, idempotent: true };
  return tool === 'request_approval'
    ? { ...shared, policy: 'always_ask', verdict: 'ask', reason: 'the agent asks a person' }
    : { ...shared, policy: 'always_allow', verdict: 'allow', reason: 'a tool of the platform' };
}

/** What a policy means for a tool that only reads, or may do more. */
export function verdictOf(policy: PermissionPolicy, readOnly: boolean): Pick<Judgement, 'verdict' | 'reason'> {
  switch (policy) {
    case 'always_allow':
      return { verdict: 'allow', reason: 'policy always_allow' };
    case 'always_ask':
      return { verdict: 'ask', reason: 'policy always_ask' };
    case 'auto':
      return readOnly
        ? { verdict: 'allow', reason: 'policy auto: a read-only tool' }
        : { verdict: 'ask', reason: 'policy auto: the tool may change the world' };
    default:
      return assertNever(policy);
  }
}

/** The `evaluation` object of a tool-use event, as Managed Agents clients know it. */
export function evaluationOf(judgement: Judgement): Record<string, unknown> | undefined {
  if (judgement.policy === null) return undefined;
  if (judgement.policy !== 'auto') return { type: judgement.policy };
  const permission =
    judgement.verdict === 'ask' ? { type: 'ask', reason_code: 'indeterminate' } : { type: judgement.verdict };
  return { type: 'auto', evaluated_permission: permission };
}
