/** Zod-free types of stored JSON: what the API resolved and validated, what activities read. */
import type { PromptCaching, ResponseCaching } from './caching.ts';
import type { AgentHarness, Placement } from './harnesses.ts';
import type { Networking } from './networking.ts';
import type { ApprovalKind, PermissionPolicy } from './states.ts';

export type BuiltinToolName = 'bash' | 'read' | 'write' | 'edit' | 'glob' | 'grep' | 'web_fetch';
export const BUILTIN_TOOL_NAMES: readonly BuiltinToolName[] = [
  'bash',
  'edit',
  'glob',
  'grep',
  'read',
  'web_fetch',
  'write',
];
/** May be repeated without changing the world: re-run after a crash, run in parallel, allowed by `auto`. */
export const READ_ONLY_TOOLS: readonly BuiltinToolName[] = ['read', 'glob', 'grep'];

export interface ToolPermission {
  type: PermissionPolicy;
}
export interface BuiltinToolConfig {
  type: BuiltinToolName;
  name: BuiltinToolName;
  enabled: boolean;
  permission_policy: ToolPermission;
}
export interface AgentToolset {
  type: 'agent_toolset_20260401';
  default_config: { enabled: boolean; permission_policy: ToolPermission };
  configs: BuiltinToolConfig[];
}
export interface CustomTool {
  type: 'custom';
  name: string;
  description: string;
  input_schema: { type: 'object'; [key: string]: unknown };
}
export interface McpToolset {
  type: 'mcp_toolset';
  mcp_server_name: string;
  default_config: { enabled: boolean; permission_policy: ToolPermission };
  configs: { name: string; enabled: boolean; permission_policy: ToolPermission }[];
}
export type AgentTool = AgentToolset | CustomTool | McpToolset;

/** `agent_versions.definition`: the agent resource without id, version and times. */
export interface AgentDefinition {
  name: string;
  description: string | null;
  model: { id: string; effort?: { type: 'low' | 'medium' | 'high' | 'xhigh' | 'max' }; speed?: 'standard' | 'fast' };
  system: string | null;
  tools: AgentTool[];
  mcp_servers: { type: 'url'; name: string; url: string }[];
  skills: { type: 'anthropic' | 'custom'; skill_id: string; version: string }[];
  multiagent: null;
  metadata: Record<string, string>;
  /** Longhaul's own fields; the last two are absent for `native`. */
  harness: AgentHarness;
  placement?: Placement;
  /** Which agent behind the harness, where it has several (`acp`). */
  harness_agent?: string;
  /** Longhaul's own fields; absent: what the harness does by itself, and no response cache. */
  prompt_caching?: PromptCaching;
  response_cache?: ResponseCaching;
}

export type SandboxProviderName = 'local' | 'docker' | 'e2b' | 'daytona' | 'kubernetes';
export const SANDBOX_PROVIDER_NAMES: readonly SandboxProviderName[] = [
  'local',
  'docker',
  'e2b',
  'daytona',
  'kubernetes',
];
export type PackageManager = 'apt' | 'cargo' | 'gem' | 'go' | 'npm' | 'pip';
export const PACKAGE_MANAGERS: readonly PackageManager[] = ['apt', 'cargo', 'gem', 'go', 'npm', 'pip'];

/** A git repository that is cloned into each sandbox; the newest commit of its default branch without branch and commit. */
export interface EnvironmentRepository {
  url: string;
  branch: string | null;
  commit: string | null;
  /** Below /workspace. */
  mount_path: string;
  /** Id or name of a credential in the vaults of the session. */
  credential: string | null;
}

/** What a sandbox may use. */
export interface EnvironmentResources {
  memory_mb: number;
  cpus: number;
  disk_mb: number;
  processes: number;
}

/** What becomes of a sandbox whose session does nothing; null: never. */
export interface IdlePolicy {
  pause_after_seconds: number;
  snapshot_after_seconds: number | null;
  destroy_after_seconds: number | null;
  /** Pausing freezes processes instead of ending them, where the provider can. */
  keep_memory: boolean;
}

/** `environments.config` of the environments we run, all defaults applied; fixed in `sessions.environment` for its life. */
export interface CloudEnvironment {
  type: 'cloud';
  networking: Networking;
  packages: Record<PackageManager, string[]> & { type: 'packages' };
  /** Longhaul's own fields. */
  provider: SandboxProviderName;
  /** A container image or a template of the provider; null: its default. */
  image: string | null;
  resources: EnvironmentResources;
  setup_script: string | null;
  repositories: EnvironmentRepository[];
  /** Not secret; credentials come from vaults. */
  env: Record<string, string>;
  idle: IdlePolicy;
}

/** `environments.config`. */
export type EnvironmentConfig = CloudEnvironment | { type: 'self_hosted' };

/** `sessions.limits`, `deployments.limits`: absent means the default in limits.ts. */
export interface SessionLimits {
  max_steps_per_turn?: number;
  turn_timeout_ms?: number;
  wall_clock_ms?: number;
  idle_ms?: number;
  approval_ttl_ms?: number;
}

/** `{type:limit}`; the amount is in minor units (cents) as a decimal string, as Managed Agents has it. */
export interface BudgetLimit {
  type: 'limit';
  max_list_cost: { amount: string; currency: 'USD' };
}

export interface TextBlock {
  type: 'text';
  text: string;
}
export interface ImageBlock {
  type: 'image';
  source: { type: 'base64'; media_type: string; data: string } | { type: 'url'; url: string };
}
export interface DocumentBlock {
  type: 'document';
  source:
    | { type: 'base64'; media_type: string; data: string }
    | { type: 'text'; media_type: 'text/plain'; data: string }
    | { type: 'url'; url: string };
  title?: string | null;
  context?: string | null;
}
export type ContentBlock = TextBlock | ImageBlock | DocumentBlock;

/** What an approver sees and what the digest binds (RFC 8785 canonical JSON, SHA-256). */
export interface ApprovalShown {
  kind: ApprovalKind;
  /** null: about the network, not about a tool call. */
  effect_id: string | null;
  tool: string;
  input: Record<string, unknown>;
  /** The command or the unified diff, ready to read. */
  preview: string;
  preview_truncated: boolean;
  sandbox: { id: string | null; provider: string; isolation: string; network: string };
  credentials: string[];
  files_read: string[];
  hosts_touched: string[];
  agent: { id: string; version: number; name: string };
  session_id: string;
  started_by: string;
  reason: string;
  expires_at: string;
}

/** Tokens by kind, normalised over protocols: `inputTokens` never includes cached ones. */
export interface Usage {
  inputTokens: number;
  cacheReadTokens: number;
  cacheWrite5mTokens: number;
  cacheWrite1hTokens: number;
  outputTokens: number;
  /** A part of the output tokens. */
  reasoningTokens: number;
  /** Searches of the web the provider itself made; billed by the piece. */
  webSearches?: number;
}
