/** Zod-free. States are data: each table names the legal moves, and the types derive from it. */

const SESSION_MOVES = {
  idle: ['running', 'terminated'],
  running: ['idle', 'rescheduling', 'terminated'],
  rescheduling: ['running', 'idle', 'terminated'],
  terminated: [],
} as const;
export type SessionStatus = keyof typeof SESSION_MOVES;
export const SESSION_STATUSES = Object.keys(SESSION_MOVES) as SessionStatus[];

/** Why a session went idle (`session.status_idle.stop_reason.type`). */
export type StopReasonType =
  | 'end_turn'
  | 'requires_action'
  | 'retries_exhausted'
  | 'budget_reached'
  | 'refusal'
  | 'interrupted'
  | 'max_steps'
  | 'max_tokens'
  | 'turn_timeout'
  | 'context_full';

/** `event_ids` are the events a client must answer; present for `requires_action` only. */
export interface StopReason {
  type: StopReasonType;
  event_ids?: string[];
}

/**
 * An accepted input (outbox row). `accepted`: row committed. `delivered`: the workflow has it. Everything after
 * `in_turn` is terminal and carries a reason.
 */
export const INPUT_MOVES = {
  accepted: ['delivered', 'in_turn', 'completed', 'failed', 'cancelled'],
  delivered: ['in_turn', 'completed', 'failed', 'cancelled'],
  in_turn: ['completed', 'failed', 'cancelled'],
  completed: [],
  failed: [],
  cancelled: [],
} as const;
export type InputState = keyof typeof INPUT_MOVES;
export type InputKind = 'message' | 'tool_confirmation' | 'custom_tool_result' | 'interrupt' | 'stop' | 'terminate';

/** One tool call that may change the world. Moved by compare-and-swap only. */
export const EFFECT_MOVES = {
  proposed: ['allowed', 'waiting', 'denied'],
  waiting: ['allowed', 'denied', 'succeeded', 'failed'],
  allowed: ['started', 'denied'],
  denied: [],
  started: ['succeeded', 'failed', 'unknown'],
  unknown: ['allowed', 'succeeded', 'failed'],
  succeeded: [],
  failed: [],
} as const;
export type EffectState = keyof typeof EFFECT_MOVES;
export const FINAL_EFFECT_STATES = ['denied', 'succeeded', 'failed'] as const satisfies readonly EffectState[];

/** `approved` is not the end: only the start of the effect (`consumed`) closes an approval. */
export const APPROVAL_MOVES = {
  pending: ['approved', 'denied', 'expired', 'cancelled'],
  approved: ['consumed', 'cancelled'],
  denied: [],
  expired: [],
  cancelled: [],
  consumed: [],
} as const;
export type ApprovalState = keyof typeof APPROVAL_MOVES;

/**
 * `effect`: may this run? `lost_effect`: it started and its outcome is unknown; what now? `egress`: may the sandbox reach
 * this? No turn waits for the last one: the tool call goes on and is told to try again.
 */
export type ApprovalKind = 'effect' | 'lost_effect' | 'egress';
/** `allow`/`deny` answer an `effect` and an `egress`; `done`/`retry`/`skip` answer a `lost_effect`. */
export type ApprovalDecision = 'allow' | 'deny' | 'done' | 'retry' | 'skip';

export type SandboxState = 'creating' | 'running' | 'paused' | 'lost' | 'destroyed';

/** How a turn ended. `interrupted` and `failed` turns also end with a `session.status_idle` event. */
export type TurnState = 'running' | 'completed' | 'failed' | 'interrupted';

export type PermissionPolicy = 'always_allow' | 'always_ask' | 'auto';
export type PolicyVerdict = 'allow' | 'ask' | 'deny';

/** Exhaustiveness guard for switches over the unions above. */
export function assertNever(value: never): never {
  throw new Error(`unexpected value: ${String(value)}`);
}
