/** Shapes that cross the border between workflows and activities: ids and decisions only, well under 4 KB. */
import type { HarnessReport } from '../activities/harness/report.ts';
import type { ApprovalDecision, StopReasonType, TurnState } from '../contracts/states.ts';
import type { HarnessTurnArgs, HarnessTurnResult, PlannedCall, WishArgs } from './harness-types.ts';

export interface StepRef {
  sessionId: string;
  turn: number;
  step: number;
}

export interface ModelStepArgs extends StepRef {
  /** Messages the turn takes; used by its first step. */
  eventIds: string[];
  /** How long the model may be seen to be away before the step gives up. */
  modelOutageMs?: number;
}

/** One tool call of a step and what is to be done about it now. */
export type PlannedEffect =
  | { effectId: string; tool: string; plan: 'run'; parallel: boolean; timeoutMs: number }
  | { effectId: string; tool: string; plan: 'ask'; approvalId: string; expiresAtMs: number; timeoutMs: number }
  | { effectId: string; tool: string; plan: 'custom' };

export type ModelStepResult =
  /** Effects to work off; those denied by policy are closed already. */
  | { kind: 'tools'; effects: PlannedEffect[] }
  /** The turn is over and recorded (also when the budget is reached or the provider refused). */
  | { kind: 'ended'; stopReason: StopReasonType };

export interface RunEffectArgs {
  sessionId: string;
  effectId: string;
  timeoutMs: number;
}

export type RunEffectResult =
  | { outcome: 'succeeded' | 'failed' | 'denied' }
  /** The sandbox has to be prepared first; nothing has started. */
  | { outcome: 'unprepared' }
  /** It started and nobody knows how it ended: a human must say. */
  | { outcome: 'unknown'; approvalId: string; expiresAtMs: number };

export interface SettleApprovalArgs {
  approvalId: string;
  /** The decision as the signal told it; recorded when the API has not recorded it. */
  decision?: ApprovalDecision;
  message?: string;
  /** The clock ran out. */
  expire?: boolean;
}

/** `run`: start the effect now. `closed`: it has its final state. `pending`: nothing was decided. */
export type SettleApprovalResult = 'run' | 'closed' | 'pending';

export interface PauseTurnArgs extends StepRef {
  /** Events a client must answer. */
  eventIds: string[];
  /** How often this step has paused: each pause is told once. */
  pause: number;
}

export interface EndTurnArgs {
  sessionId: string;
  turn: number;
  state: Exclude<TurnState, 'running'>;
  stopReason: StopReasonType;
  reason: string;
  /** Messages of the turn: closed even when the turn was never opened. */
  eventIds: string[];
}

export interface CloseSessionArgs {
  sessionId: string;
  reason: string;
}

export interface SessionActivities {
  modelStep(args: ModelStepArgs): Promise<ModelStepResult>;
  runEffect(args: RunEffectArgs): Promise<RunEffectResult>;
  settleApproval(args: SettleApprovalArgs): Promise<SettleApprovalResult>;
  /** A custom tool that nobody answered in time fails. */
  expireCustomTool(args: { effectId: string }): Promise<void>;
  pauseTurn(args: PauseTurnArgs): Promise<void>;
  /** Runs one attempt of a harness at its turn. */
  harnessTurn(args: HarnessTurnArgs): Promise<HarnessTurnResult>;
  /** Judges a tool call of a harness and writes its effect; a repeat gives what it is by now. */
  planCall(args: { sessionId: string; callId: string }): Promise<PlannedCall>;
  /** Asks the running attempt of a harness to let go. */
  wishAttempt(args: WishArgs): Promise<void>;
  endTurn(args: EndTurnArgs): Promise<void>;
  /** Gives control inputs (interrupt, stop) that found nothing to act on their terminal state. */
  closeInputs(args: { sessionId: string; eventIds: string[]; reason: string }): Promise<void>;
  /** Makes a sandbox ready that needs more than a moment. `failed` is recorded, and what wants the sandbox fails with it. */
  prepareSandbox(args: { sessionId: string }): Promise<{ state: 'ready' | 'failed' }>;
  pauseSandbox(args: { sessionId: string }): Promise<void>;
  closeSession(args: CloseSessionArgs): Promise<void>;
}

/** How a deployment run ended: how the first turn of its session did, or why there was none to wait for. */
export type RunEnd = StopReasonType | 'terminated' | 'cancelled' | 'not_started';

export interface DeploymentActivities {
  /** Makes the run and its session rows; idempotent on the workflow id. Null: nothing to run (paused, archived, refused). */
  createScheduledRun(args: { deploymentId: string; workflowId: string; scheduledAt: string }): Promise<{
    runId: string;
    sessionId: string;
  } | null>;
  startSession(args: { sessionId: string; notify: string }): Promise<void>;
  /** `unbegun`: the session whose workflow never began, to be ended with its run. */
  endRun(args: { runId: string; stopReason: RunEnd; unbegun?: string }): Promise<{ ok: boolean }>;
}

export interface MaintenanceActivities {
  reapSandboxes(): Promise<{ destroyed: number; paused: number; strays: number }>;
  pruneRecords(): Promise<{ deleted: number }>;
}

export interface HarnessReportActivities {
  /** Which harnesses this worker has, and what they can. */
  reportHarnesses(): Promise<HarnessReport>;
}
