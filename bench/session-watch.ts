import type { LiveFrame, LonghaulClient } from '../client/index.ts';
import type { SessionEvent } from '../contracts/events.ts';

type Frame = SessionEvent | LiveFrame;

interface Waiter {
  matches: (frame: Frame) => boolean;
  resolve: (seen: Seen) => void;
  reject: (error: unknown) => void;
}

/** A frame with the moment it came, on the clock of `performance.now()`. */
export interface Seen {
  frame: Frame;
  atMs: number;
}

const WAIT_LIMIT_MS = 60_000;

/** A viewer of one session that stays connected and can be asked for the next frame of a kind. */
export class SessionWatch {
  readonly #abort = new AbortController();
  #waiters: Waiter[] = [];

  constructor(client: LonghaulClient, sessionId: string) {
    void this.#read(client, sessionId);
  }

  /** The next matching frame that comes after this call. */
  next(matches: (frame: Frame) => boolean): Promise<Seen> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no such frame in time')), WAIT_LIMIT_MS);
      const done = (seen: Seen): void => {
        clearTimeout(timer);
        resolve(seen);
      };
      this.#waiters.push({ matches, resolve: done, reject });
    });
  }

  close(): void {
    this.#abort.abort();
  }

  async #read(client: LonghaulClient, sessionId: string): Promise<void> {
    const { signal } = this.#abort;
    try {
      for await (const frame of client.sessions.follow(sessionId, { after: 0, live: true, signal })) {
        const atMs = performance.now();
        const due = this.#waiters.filter(({ matches }) => matches(frame));
        this.#waiters = this.#waiters.filter((waiter) => !due.includes(waiter));
        for (const { resolve } of due) resolve({ frame, atMs });
      }
    } catch (error) {
      if (!signal.aborted) for (const { reject } of this.#waiters) reject(error);
    }
  }
}

/** The end of a turn. */
export function isTurnEnd(frame: Frame): boolean {
  if (frame.type !== 'session.status_idle') return false;
  const { type } = frame['stop_reason'] as { type: string };
  if (type !== 'end_turn') throw new Error(`the turn ended with ${type}`);
  return true;
}

/** The first piece of text. */
export function isFirstText(frame: Frame): boolean {
  return frame.type === 'event_delta';
}

/** The result of a tool call. */
export function isToolResult(frame: Frame): boolean {
  return frame.type === 'agent.tool_result';
}

/** A tool call that is about to run. */
export function isToolUse(frame: Frame): boolean {
  return frame.type === 'agent.tool_use';
}
