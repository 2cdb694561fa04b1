/** What crosses the border between workflows and activities for harnesses: ids and decisions only. */
import type { CallExecutor } from '../contracts/harnesses.ts';
import type { StopReasonType } from '../contracts/states.ts';
import type { PlannedEffect } from './activity-types.ts';

/** A tool call of a harness as the policy planned it. `closed`: it has its end, or its turn has. */
export type PlannedCall = { kind: 'closed' } | { kind: 'open'; executor: CallExecutor; effect: PlannedEffect };

export interface HarnessTurnArgs {
  sessionId: string;
  turn: number;
  attempt: number;
  /** Messages the turn takes; used by its first attempt. */
  eventIds: string[];
  /** Lives of the harness that ended in this turn without an answer. */
  crashes: number;
  modelOutageMs: number;
}

export type HarnessTurnResult =
  /** The turn is over and recorded. */
  | { kind: 'ended'; stopReason: StopReasonType }
  /** The harness waits for people; it keeps its session and nothing runs. */
  | { kind: 'parked' }
  /** The harness goes on by itself; the next attempt finds it. */
  | { kind: 'detached' }
  /** Calls the harness had begun by itself when it died: people must say what became of them. */
  | { kind: 'lost'; callIds: string[] }
  /** Its sandbox has to be prepared first; nothing has started. */
  | { kind: 'unprepared' }
  /** It failed in a way that may pass. */
  | { kind: 'again'; delayMs: number; crashes: number };

export interface WishArgs {
  sessionId: string;
  turn: number;
  attempt: number;
  /** `detach`: this worker lets go, the harness goes on. `park`: the harness stops and keeps its session. */
  wish: 'park' | 'detach';
}
