import type { ApprovalSignal, InputMessage, OpenTurn, SessionArgs, SessionCarry, SessionPeek } from '../messages.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { CallQueue } from './call-queue.ts';
import { bounded, idOf, openTurnOf } from './carry.ts';

const REASON_CHARS = 500;

/** Everything a session workflow knows, free of Temporal so that unit tests can drive it. */
export class SessionState {
  readonly startedAtMs: number;
  lastActiveMs: number;
  turn: number;
  open: OpenTurn | undefined;
  /** Messages that wait: ids only, content and model are in Postgres. */
  readonly queue: string[];
  readonly decisions: Map<string, ApprovalSignal>;
  readonly answered: Set<string>;
  readonly controls: string[];
  readonly calls: CallQueue;
  /** Approval ids, and effect ids of custom tools, that the open turn waits for. */
  readonly waitingFor = new Set<string>();
  firstTurnReported: boolean;
  stopRequested: boolean;
  /** An interrupt that met an open turn; it holds until that turn has ended, also over continue-as-new. */
  interruptRequested: boolean;
  terminateReason: string | undefined;
  sandboxPaused = false;
  /** Since when the open turn waits for people. */
  waitingSinceMs: number | undefined;
  turnTimedOut = false;
  private readonly seen: Set<string>;

  constructor(args: SessionArgs, nowMs: number) {
    const carry = args.carry;
    this.startedAtMs = carry?.startedAtMs ?? nowMs;
    this.lastActiveMs = carry?.lastActiveMs ?? nowMs;
    this.turn = carry?.turn ?? args.lastTurn ?? 0;
    this.open = openTurnOf(carry?.open);
    this.queue = (carry?.queue ?? []).map(idOf);
    this.seen = new Set([...(carry?.seen ?? []), ...this.queue]);
    this.decisions = new Map((carry?.decisions ?? []).map((signal) => [signal.approvalId, signal]));
    this.firstTurnReported = carry?.firstTurnReported ?? false;
    this.stopRequested = carry?.stopRequested ?? false;
    this.interruptRequested = carry?.interruptRequested ?? false;
    this.terminateReason = carry?.terminateReason;
    this.answered = new Set(carry?.answered ?? []);
    this.controls = [...(carry?.controls ?? [])];
    this.calls = new CallQueue(carry?.calls);
    for (const input of args.inputs) this.accept(input);
  }

  /** Why an input cannot be taken, or undefined. */
  refusal(input: InputMessage): 'closing' | 'queue_full' | undefined {
    if (this.terminateReason !== undefined) return 'closing';
    if (this.queue.length < LIMITS.queuedInputs || this.seen.has(input.eventId)) return undefined;
    return input.kind === 'message' ? 'queue_full' : undefined;
  }

  /** Takes an input once; a redelivery changes nothing. */
  accept(input: InputMessage): void {
    if (this.seen.has(input.eventId)) return;
    this.remember(input.eventId);
    switch (input.kind) {
      case 'message':
        this.queue.push(input.eventId);
        return;
      case 'custom_tool_result':
        if (input.effectId !== undefined) this.answered.add(input.effectId);
        return;
      case 'tool_confirmation':
        if (input.approvalId !== undefined && input.decision !== undefined) {
          this.decide({ approvalId: input.approvalId, decision: input.decision, eventId: input.eventId });
        }
        return;
      case 'interrupt':
      case 'stop':
        this.controls.push(input.eventId);
        return;
      case 'terminate':
        this.terminate('terminated by a client');
        return;
    }
  }

  /** The first reason stands. */
  terminate(reason: string): void {
    this.terminateReason ??= reason.slice(0, REASON_CHARS);
  }

  /** The first decision about an approval stands; Postgres is the judge of conflicts. */
  decide(signal: ApprovalSignal): void {
    if (!this.decisions.has(signal.approvalId)) this.decisions.set(signal.approvalId, signal);
  }

  /** True when `key` (approval or custom effect) has been answered. */
  isAnswered(key: string): boolean {
    return this.decisions.has(key) || this.answered.has(key);
  }

  isClosing(): boolean {
    return this.terminateReason !== undefined;
  }

  /**
   * Kill the open turn, keep the queue. A message that waits for its turn to open counts as that turn: whoever sent both
   * meant it. Without either there is nothing to kill.
   */
  interrupt(eventId: string | undefined): void {
    if (!this.takeControl(eventId)) return;
    if (this.open !== undefined || this.queue.length > 0) this.interruptRequested = true;
  }

  stop(eventId: string | undefined): void {
    if (this.takeControl(eventId) && this.open !== undefined) this.stopRequested = true;
  }

  /** False for a redelivery: it must not act on a later turn. */
  private takeControl(eventId: string | undefined): boolean {
    if (eventId === undefined) return true;
    if (this.seen.has(eventId)) return false;
    this.remember(eventId);
    this.controls.push(eventId);
    return true;
  }

  hasWork(): boolean {
    return this.queue.length > 0 || this.open !== undefined || this.terminateReason !== undefined;
  }

  /** Time the open turn has used, without the time it waited for people. */
  turnActiveMs(nowMs: number): number {
    if (this.open === undefined) return 0;
    return (this.waitingSinceMs ?? nowMs) - this.open.startedAtMs;
  }

  startWaiting(nowMs: number): void {
    this.waitingSinceMs = nowMs;
  }

  stopWaiting(nowMs: number): void {
    if (this.open !== undefined && this.waitingSinceMs !== undefined) {
      this.open.startedAtMs += nowMs - this.waitingSinceMs;
    }
    this.waitingSinceMs = undefined;
  }

  /** Opens the next turn with the oldest queued message. */
  beginTurn(nowMs: number): OpenTurn {
    if (this.open !== undefined) return this.open;
    const eventId = this.queue.shift();
    if (eventId === undefined) throw new Error('no queued message');
    this.turn += 1;
    this.open = { turn: this.turn, step: 0, startedAtMs: nowMs, eventIds: [eventId] };
    return this.open;
  }

  endTurn(nowMs: number): void {
    this.open = undefined;
    this.lastActiveMs = nowMs;
    this.stopRequested = false;
    this.interruptRequested = false;
    this.sandboxPaused = false;
    this.turnTimedOut = false;
    // An interrupt ends a wait without its end being told.
    this.waitingSinceMs = undefined;
    this.waitingFor.clear();
    this.decisions.clear();
    this.answered.clear();
    this.calls.clear();
  }

  /** At most as many as one activity takes. */
  takeControls(): string[] {
    return this.controls.splice(0, LIMITS.seenInputIds);
  }

  toCarry(): SessionCarry {
    return bounded({
      startedAtMs: this.startedAtMs,
      lastActiveMs: this.lastActiveMs,
      turn: this.turn,
      ...(this.open === undefined ? {} : { open: this.open }),
      queue: this.queue,
      seen: [...this.seen],
      decisions: [...this.decisions.values()],
      answered: [...this.answered],
      controls: this.controls,
      ...(this.calls.size === 0 ? {} : { calls: this.calls.ids() }),
      interruptRequested: this.interruptRequested,
      ...(this.terminateReason === undefined ? {} : { terminateReason: this.terminateReason }),
      firstTurnReported: this.firstTurnReported,
      stopRequested: this.stopRequested,
    });
  }

  peek(): SessionPeek {
    const status =
      this.terminateReason !== undefined
        ? 'closing'
        : this.waitingFor.size > 0
          ? 'waiting'
          : this.open === undefined
            ? 'idle'
            : 'running';
    return {
      status,
      turn: this.turn,
      step: this.open?.step ?? 0,
      queued: this.queue.length,
      waitingFor: [...this.waitingFor],
    };
  }

  private remember(eventId: string): void {
    this.seen.add(eventId);
    if (this.seen.size <= LIMITS.seenInputIds + this.queue.length) return;
    const oldest = this.seen.values().next().value;
    if (oldest !== undefined) this.seen.delete(oldest);
  }
}
