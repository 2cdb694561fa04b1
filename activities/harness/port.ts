/** The `HarnessDriver` port. Drivers pass test/conformance/harness.suite.ts; they know nothing of Temporal or Postgres. */

import type { ContentBlock } from '../../contracts/definitions.ts';
import type { SandboxProvider, SandboxRef } from '../sandbox/port.ts';
import type { HarnessName, Placement } from '../../contracts/harnesses.ts';

export type { HarnessName, Placement };

/** What a driver can do with its harness as it is installed here; shown as it is, never better. */
export interface HarnessCapabilities {
  /** One process serves many sessions. */
  multiSession: boolean;
  placements: readonly Placement[];
  perSessionKey: boolean;
  perMessageModel: boolean;
  systemPrompt: 'replace' | 'append' | 'none';
  mcp: readonly ('http' | 'stdio')[];
  /** `deduplicated`: the harness takes a message id once. `looked_up`: its history tells whether it has the message. */
  idempotentMessage: 'deduplicated' | 'looked_up' | 'none';
  /** A new worker finds the running turn again. */
  hotReattach: boolean;
  /** A pending permission survives the end of the harness's process. */
  durablePermission: boolean;
  /** The reason of a denial reaches the model; absent: yes. */
  deniesWithReason?: boolean;
  /** Its own tools can be taken away, so that ours are its only hands. */
  remoteTools: boolean;
  skills: boolean;
  /** What the harness says of its usage: a cross-check only, the ledger counts at the gateway. */
  usageBasis: 'per_call' | 'per_turn' | 'last_call' | 'cumulative' | 'none';
  /** What it cannot do and what that means, ready to print. */
  notes: string[];
}

/** Where the harness asks a model: our gateway, with a key of the session. */
export interface ModelEndpoint {
  /** Base URL of the gateway without `/v1` and without a trailing slash. */
  baseUrl: string;
  /** Virtual key; or, inside a sandbox, the placeholder that the broker replaces. */
  key: string;
}

export interface McpEndpoint {
  name: string;
  url: string;
  headers: Record<string, string>;
}

/** Where a harness that asks by HTTP hooks does so; the product answers as `TurnHost.permission` would. */
export interface HookEndpoint {
  url: string;
  headers: Record<string, string>;
}

/** SKILL.md and what belongs to it; seen by this session only. */
export interface SkillFolder {
  name: string;
  files: { path: string; content: Uint8Array }[];
}

/** The session's sandbox, running and ready for commands. */
export interface SandboxPlace {
  provider: SandboxProvider;
  ref: SandboxRef;
  /** Of every command: variables of the environment, placeholders, the way to the broker. */
  env: Record<string, string>;
}

/** Everything of a session that stays the same over its turns (invariant 7). */
export interface HarnessSpec {
  sessionId: string;
  placement: Placement;
  /** `sandbox` only. Another one when the first was lost. */
  sandbox?: SandboxPlace;
  /** Absolute. The harness's working directory: a folder of its own (inline), `/workspace` (sandbox). */
  cwd: string;
  /** Absolute. A folder for this session's configuration and state, private to the session, kept until it ends. */
  stateDir: string;
  systemPrompt: string | null;
  model: ModelEndpoint;
  /** The first one is ours, named `longhaul`. */
  mcpServers: McpEndpoint[];
  hook?: HookEndpoint;
  /** `platform`: only our MCP tools act. `own`: the harness acts by itself and asks before it does. */
  hands: 'platform' | 'own';
  skills: SkillFolder[];
  env: Record<string, string>;
  /** `acp` only: which agent of the recipes. */
  agent?: string;
}

/** Plain JSON without secrets, stored in Postgres: what another process needs to go on. */
export type ResumeToken = Record<string, unknown>;

/** A session of the harness, opened or found again. */
export interface HarnessHandle {
  readonly harnessSessionId: string;
  readonly resumeToken: ResumeToken;
  /** The harness went on without us: its turn still runs. */
  readonly isAttachedToRunning: boolean;
}

export interface TurnSpec {
  turn: number;
  attempt: number;
  /** True when an earlier try of this attempt may have sent the message. */
  resumed: boolean;
  /** 32 hex digits from (session, turn): each driver makes its own form of message id of it. */
  messageId: string;
  model: string;
  content: ContentBlock[];
  /**
   * In words: what became of calls since the last attempt. Sent instead of `content` when the harness has that already. Null
   * for the first try and for a turn that still runs.
   */
  continuation: string | null;
}

/** Tokens as the harness counts them; see `usageBasis`. */
export interface HarnessUsage {
  inputTokens: number;
  cacheReadTokens: number;
  cacheWriteTokens: number;
  outputTokens: number;
  costMicros: number | null;
}

/** What happens in a turn. `id` is the harness's own, stable over re-attachments: the same id is recorded once. */
export type HarnessEvent =
  | { type: 'text_delta'; id: string; text: string }
  | { type: 'thinking_delta'; id: string; text: string }
  | { type: 'message'; id: string; text: string }
  | { type: 'thinking'; id: string; text: string }
  /** A tool of the harness's own. */
  | { type: 'tool_call'; id: string; tool: string; input: Record<string, unknown> }
  | { type: 'tool_result'; id: string; content: ContentBlock[]; isError: boolean }
  /** The harness has written the result of one of our tools into its history: it is delivered. */
  | { type: 'platform_result_seen'; id: string; tool: string; input: Record<string, unknown> }
  | { type: 'usage'; id: string; usage: HarnessUsage }
  /** The harness asks the model again by itself. */
  | { type: 'retry'; id: string; attempt: number; message: string; httpStatus: number | null }
  | { type: 'compaction'; id: string; summary: string | null }
  | { type: 'todo'; id: string; items: { text: string; status: 'pending' | 'in_progress' | 'completed' }[] }
  | { type: 'subagent'; id: string; phase: 'started' | 'ended'; title: string }
  /** Alive, nothing to tell: keeps the watchdog quiet. */
  | { type: 'activity'; id: string };

/** The harness wants to use a tool of its own. */
export interface PermissionRequest {
  /** Id of the call in the harness; the same when it asks again after a resume, if the harness can. */
  callId: string;
  tool: string;
  input: Record<string, unknown>;
}

export type PermissionAnswer =
  | { decision: 'allow'; input: Record<string, unknown> }
  | { decision: 'deny'; message: string }
  /** Nobody has decided for a while: end the harness's turn, keep its session, return `parked`. */
  | { decision: 'park' };

export interface ToolAnswer {
  content: ContentBlock[];
  isError: boolean;
}

/** What a driver may ask of the product while a turn runs. */
export interface TurnHost {
  /** Resolves when the event is recorded (previews: at once). */
  emit(event: HarnessEvent): Promise<void>;
  permission(request: PermissionRequest): Promise<PermissionAnswer>;
  /** Runs one of our tools for harnesses that call us back instead of MCP. */
  callTool(request: PermissionRequest): Promise<ToolAnswer | { parked: true }>;
  /** Stored before it resolves: what a later attempt is given as resume token. */
  checkpoint(token: ResumeToken): Promise<void>;
  /** Aborted when the turn should be parked: end the harness's turn, keep the session, return `parked`. */
  readonly parkSignal: AbortSignal;
  /** Aborted when this worker hands over: leave the harness as it runs, return `detached`. */
  readonly detachSignal: AbortSignal;
}

export type FaultClass =
  'auth' | 'bad_request' | 'rate_limit' | 'overloaded' | 'context' | 'budget' | 'refusal' | 'harness_crash' | 'stalled';

export type TurnOutcome =
  | { kind: 'completed'; stopReason: 'end_turn' | 'max_tokens' | 'refusal' }
  | { kind: 'parked' }
  | { kind: 'detached' }
  | { kind: 'cancelled' }
  | { kind: 'failed'; fault: FaultClass; retryable: boolean; httpStatus: number | null; message: string };

export interface HarnessDriver {
  readonly name: HarnessName;
  /** `agent`: of `acp`, whose agents differ. */
  capabilities(agent?: string): Promise<HarnessCapabilities>;
  /**
   * Opens a session or finds it again. Repeatable: with the same spec and token it never makes a second one. Throws
   * `LonghaulError` with `harness_unavailable` (try again) or `harness_invalid`.
   */
  open(spec: HarnessSpec, token: ResumeToken | null, signal: AbortSignal): Promise<HarnessHandle>;
  /**
   * Runs the turn, or attaches to it when it runs already. Never throws for what the model or the harness did wrong:
   * that is an outcome. `signal` aborted: the turn is cancelled in the harness, too.
   */
  runTurn(handle: HarnessHandle, turn: TurnSpec, host: TurnHost, signal: AbortSignal): Promise<TurnOutcome>;
  /** The session's state for another machine; null where the harness has no such thing. At most 16 MiB. */
  exportState(handle: HarnessHandle, signal: AbortSignal): Promise<Uint8Array | null>;
  /** Puts an exported state where `open` finds it. */
  importState(spec: HarnessSpec, token: ResumeToken, state: Uint8Array, signal: AbortSignal): Promise<void>;
  /** Ends what runs for the session here; with `forget` its files, too. Repeatable. */
  close(spec: HarnessSpec, token: ResumeToken | null, forget: boolean, signal: AbortSignal): Promise<void>;
}
