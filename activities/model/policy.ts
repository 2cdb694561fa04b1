import type { AgentDefinition } from '../../contracts/definitions.ts';
import { READ_ONLY_TOOLS } from '../../contracts/definitions.ts';
import type { PermissionPolicy, PolicyVerdict } from '../../contracts/states.ts';
import { assertNever } from '../../contracts/states.ts';
import { isBuiltinTool } from '../../contracts/tool-inputs.ts';
import { isEnabled, toolsetOf } from '../../contracts/agent-tools.ts';
import type { PlatformToolName } from '../../contracts/platform-tools.ts';
import { platformTool } from '../../contracts/platform-tools.ts';

/** Part of every approval: which rules judged. */
export const POLICY_VERSION = 'permissions/1';

export interface Judgement {
  kind: 'builtin' | 'custom' | 'invalid' | 'harness' | 'platform';
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
  const platform = platformTool(agent, tool);
  if (platform !== undefined) return judgePlatform(platform);
  const toolset = toolsetOf(agent);
  if (toolset === undefined || !isBuiltinTool(tool) || !isEnabled(toolset, tool)) {
    const reason = `the agent has no tool named ${tool}`;
    return { kind: 'invalid', verdict: 'deny', reason, policy: null, idempotent: true };
  }
  const config = toolset.configs.find((entry) => entry.name === tool);
  const policy = (config?.permission_policy ?? toolset.default_config.permission_policy).type;
  const readOnly = READ_ONLY_TOOLS.includes(tool);
  return { kind: 'builtin', policy, idempotent: readOnly, ...verdictOf(policy, readOnly) };
}

  kind: 'builtin' | 'custom' | 'invalid' | 'harness' | 'platform';
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
