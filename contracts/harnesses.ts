/** Zod-free. The loops that drive a model: our own (`native`) and those we drive through `activities/harness/port.ts`. */

export const HARNESS_NAMES = ['opencode', 'codex', 'claude-code', 'github-copilot', 'acp'] as const;
export type HarnessName = (typeof HARNESS_NAMES)[number];
export type AgentHarness = 'native' | HarnessName;
export const AGENT_HARNESSES: readonly AgentHarness[] = ['native', ...HARNESS_NAMES];

/** `inline`: beside the worker, its hands in the sandbox. `sandbox`: the harness itself runs in the session's sandbox. */
export type Placement = 'inline' | 'sandbox';
export const PLACEMENTS: readonly Placement[] = ['inline', 'sandbox'];

interface AvailableHarness {
  /** The first one is the default. */
  placements: readonly Placement[];
  /** Names that `harness_agent` may have; empty: the harness has none. */
  agents: readonly string[];
}

/** What agents may be made with. A harness is added when its driver lands, with what that driver really can. */
export const AVAILABLE_HARNESSES: Readonly<Partial<Record<AgentHarness, AvailableHarness>>> = {
  native: { placements: ['inline'], agents: [] },
  opencode: { placements: ['inline'], agents: [] },
  codex: { placements: ['inline'], agents: [] },
  'claude-code': { placements: ['inline'], agents: [] },
  'github-copilot': { placements: ['inline'], agents: [] },
  acp: { placements: ['sandbox'], agents: ['gemini', 'qwen'] },
};

/** What of the product a harness inside a sandbox reaches, through the egress broker and by a name of its own. */
export const OWN_SERVICES = ['gateway', 'mcp'] as const;
export type OwnService = (typeof OWN_SERVICES)[number];

/** No resolver knows these names: the broker does. Plain http; what stands for the key there is replaced. */
export function ownServiceHost(service: OwnService): string {
  return `${service}.longhaul.internal`;
}

/** Who runs a tool call of a harness: we (`platform`), or the harness itself once it may (`harness`). */
export type CallExecutor = 'platform' | 'harness';
