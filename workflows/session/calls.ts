import { condition } from '@temporalio/workflow';
import type { PlannedEffect } from '../activity-types.ts';
import type { PlannedCall } from '../harness-types.ts';
import type { HarnessProgress } from '../messages.ts';
import type { SessionContext } from './context.ts';
import type { Waiting } from './effects.ts';
import { runOne, settle } from './effects.ts';
import { records } from './proxies.ts';

/**
 * Works off the tool calls of a harness beside its attempt, each on its own: the harness has decided what goes together.
 * What waits for a person holds nothing else up. Calls outlive the attempt that asked for them.
 */
export class CallPump {
  private readonly context: SessionContext;
  private readonly at: { sessionId: string; turn: number };
  private readonly progress: HarnessProgress;
  private readonly waiting = new Map<string, Waiting>();
  private running = 0;
  private failure: { error: unknown } | undefined;

  constructor(context: SessionContext, turn: number, progress: HarnessProgress) {
    this.context = context;
    this.at = { sessionId: context.args.sessionId, turn };
    this.progress = progress;
  }

  /** Takes up what is asked until `isDone`; throws what a call could not get over. */
  async serve(isDone: () => boolean): Promise<void> {
    const { calls } = this.context.state;
    for (;;) {
      await condition(() => this.failure !== undefined || calls.hasFresh() || isDone());
      if (this.failure !== undefined) throw this.failure.error;
      if (isDone()) return;
      const callId = calls.next();
      if (callId !== undefined) void this.workOff(callId);
    }
  }

  /** Nothing is under way in an activity: what is open waits for people. */
  isResting(): boolean {
    return this.running === 0;
  }

  private async workOff(callId: string): Promise<void> {
    try {
      const planned = await this.busy(() => records.planCall({ sessionId: this.at.sessionId, callId }));
      if (planned.kind === 'open') await this.bring(planned);
      this.context.state.calls.close(callId);
    } catch (error) {
      this.failure ??= { error };
    }
  }

  /** Brings a call to its end, or, where the harness runs it, to where the harness may begin. */
  private async bring({ executor, effect }: Extract<PlannedCall, { kind: 'open' }>): Promise<void> {
    let question = this.questionOf(effect);
    for (;;) {
      if (question !== undefined && (await this.answer(...question)) === 'closed') return;
      if (executor === 'harness') return;
      question = await this.busy(() => runOne(this.context, { timeoutMs: 0, ...effect }));
      if (question === undefined) return;
    }
  }

  private questionOf(effect: PlannedEffect): [string, Waiting] | undefined {
    switch (effect.plan) {
      case 'run':
        return undefined;
      case 'ask':
        return [effect.approvalId, { ...effect, kind: 'approval' }];
      case 'custom': {
        const expiresAtMs = Date.now() + this.context.args.limits.idleMs;
        return [effect.effectId, { ...effect, kind: 'custom', timeoutMs: 0, expiresAtMs }];
      }
    }
  }

  private async answer(key: string, entry: Waiting): Promise<'run' | 'closed'> {
    const { state } = this.context;
    this.waiting.set(key, entry);
    state.waitingFor.add(key);
    try {
      for (;;) {
        if (!state.isAnswered(key)) {
          await this.tellWaiting();
          await condition(() => state.isAnswered(key), Math.max(1, entry.expiresAtMs - Date.now()));
        }
        const settled = await this.busy(() => settle(this.context, key, entry));
        if (settled !== 'pending') return settled;
      }
    } finally {
      this.waiting.delete(key);
      state.waitingFor.delete(key);
      this.refresh();
    }
  }

  private async busy<T>(work: () => Promise<T>): Promise<T> {
    this.running += 1;
    this.refresh();
    try {
      return await work();
    } finally {
      this.running -= 1;
      this.refresh();
    }
  }

  /** The turn's clock stands still while nothing goes on but a person is waited for. */
  private refresh(): void {
    const { state } = this.context;
    const stands = this.waiting.size > 0 && this.running === 0;
    if (stands && state.waitingSinceMs === undefined) state.startWaiting(Date.now());
    if (!stands && state.waitingSinceMs !== undefined) state.stopWaiting(Date.now());
    this.context.show([...this.waiting.values()].map(({ tool }) => tool));
  }

  private async tellWaiting(): Promise<void> {
    const eventIds = [...this.waiting.values()].map(({ effectId }) => effectId);
    const pause = this.progress.pauses;
    this.progress.pauses += 1;
    await this.busy(() => records.pauseTurn({ ...this.at, step: 0, eventIds, pause }));
  }
}
