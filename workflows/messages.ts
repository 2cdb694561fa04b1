import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow';
import type { ApprovalDecision, InputKind, StopReasonType } from '../contracts/states.ts';

/** One accepted input, by reference: content stays in Postgres. */
export interface InputMessage {
  eventId: string;
  kind: InputKind;
  /** `custom_tool_result`: the effect it answers. */
  effectId?: string;
  /** `tool_confirmation`: the approval it decides. */
  approvalId?: string;
  decision?: ApprovalDecision;
}

export interface ApprovalSignal {
  approvalId: string;
  decision: ApprovalDecision;
  /** Set when the API wrote the decision already; without it the decision came straight over Temporal. */
  eventId?: string;
  /** What to tell the model when denied. */
  message?: string;
}

/** A row of `harness_calls`: what is called stays in Postgres. */
export interface ToolCallMessage {
  callId: string;
}

/** Effective limits of one session, defaults applied; all in milliseconds except the step count. */
export interface SessionLimitsMs {
  maxStepsPerTurn: number;
  turnTimeoutMs: number;
  wallClockMs: number;
  idleMs: number;
  modelOutageMs: number;
}

/** Argument of the session workflow. `inputs` are the initial events. */
export interface SessionArgs {
  sessionId: string;
  title: string;
  agent: { id: string; version: number; name: string };
  limits: SessionLimitsMs;
  inputs: InputMessage[];
  /** Turns that the record has already: a session whose Temporal history was lost goes on counting. */
  lastTurn?: number;
  /** Set when another loop than our own drives the model: its name. */
  harness?: string;
  /** Told when the first turn ends (a deployment run waits for it). */
  notify?: string;
  /** State carried over continue-as-new; see workflows/session/state.ts. */
  carry?: SessionCarry;
}

/** A turn in progress: its place and the messages it took. */
export interface OpenTurn {
  turn: number;
  step: number;
  startedAtMs: number;
  eventIds: string[];
  /** Of a harness only. */
  harness?: HarnessProgress;
}

/** How far a harness's turn is; what it has asked for is in `SessionCarry.calls`. */
export interface HarnessProgress {
  attempt: number;
  /** Lives of the harness that ended in this turn without an answer. */
  crashes: number;
  /** How often the turn has told that it waits. */
  pauses: number;
  /** The harness has stopped until its calls have their answers. */
  parked?: boolean;
}

/** State of a session between two runs; at most 64 KB with everything at its limit. */
export interface SessionCarry {
  startedAtMs: number;
  lastActiveMs: number;
  turn: number;
  /** Resumes at this step. Runs of an earlier version carried the messages themselves. */
  open?: OpenTurn | (Omit<OpenTurn, 'eventIds'> & { inputs: InputMessage[] });
  /** Messages that wait, oldest first; the same holds. */
  queue: (string | InputMessage)[];
  /** Ids of inputs that came before those in the queue. */
  seen: string[];
  decisions: ApprovalSignal[];
  /** Effects of custom tools that were answered. */
  answered: string[];
  /** Interrupt and stop inputs that still need their terminal state. */
  controls: string[];
  /** Tool calls of a harness that are under way. */
  calls?: string[];
  interruptRequested: boolean;
  terminateReason?: string;
  firstTurnReported: boolean;
  stopRequested: boolean;
}

export interface SessionPeek {
  status: 'idle' | 'running' | 'waiting' | 'closing';
  turn: number;
  step: number;
  queued: number;
  waitingFor: string[];
}

/** What `turnEnded` tells a deployment run. */
export interface TurnEnded {
  sessionId: string;
  stopReason: StopReasonType | 'terminated';
}

export const submit = defineUpdate<{ queued: number }, [InputMessage]>('submit');
export const approve = defineSignal<[ApprovalSignal]>('approve');
/** Kill the running turn now, keep the queue. */
export const interrupt = defineSignal<[{ eventId?: string }]>('interrupt');
/** End the running turn at its next step boundary. */
export const stop = defineSignal<[{ eventId?: string }]>('stop');
export const terminate = defineSignal<[{ eventId?: string; reason: string }]>('terminate');
/** A harness asks for a tool call, by reference; refused while no turn is open. Same id, same call: its update id. */
export const toolCall = defineUpdate<void, [ToolCallMessage]>('toolCall');
export const peek = defineQuery<SessionPeek>('peek');
export const turnEnded = defineSignal<[TurnEnded]>('turnEnded');

/** Argument of a deployment run. `runId` and `sessionId` are given when a person ran it now. */
export interface DeploymentRunArgs {
  deploymentId: string;
  runId?: string;
  sessionId?: string;
}
