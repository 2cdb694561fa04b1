import { setTimeout as sleep } from 'node:timers/promises';
import type { Pool } from '../db/pool.ts';
import type { LiveDelta } from '../db/queries/events.ts';
import { DELTAS_CHANNEL, EVENTS_CHANNEL } from '../db/queries/events.ts';
import { lastSeqs } from '../db/queries/sessions.ts';
import { listenOn } from '../db/listen.ts';
import type { Logger } from '../telemetry/logger.ts';

/** One open stream. Neither method may throw or block. */
export interface Watcher {
  sessionId: string;
  /** Newest seq it has sent, so that the poll can tell whether it is behind. */
  readonly lastSent: number;
  /** The session has (perhaps) newer events. */
  wake(): void;
  delta(delta: LiveDelta): void;
  /** The server stops; the viewer may come back elsewhere. */
  end(): void;
}

/** Follows every session at once. No method may throw or block. */
export interface Observer {
  /** The log of this session grew. */
  changed(sessionId: string): void;
  delta(delta: LiveDelta): void;
  /** Notices may have been lost. */
  unsure(): void;
  /** Resolves when all that the log of this session has now was sent; false: it is not followed here. */
  settled(sessionId: string): Promise<boolean>;
  /** The server stops; the viewer may come back elsewhere. */
  end(): void;
}

const POLL_MS = 5_000;
const RECONNECT_MS = 500;

/**
 * Tells open streams that their session's log grew. One database connection listens for the whole process; a notice is
 * only a hint to read, so a lost connection costs time, never an event.
 */
export class EventHub {
  private readonly watchers = new Map<string, Set<Watcher>>();
  private readonly observers = new Set<Observer>();
  private readonly stopping = new AbortController();
  private readonly deps: { pool: Pool; databaseUrl: string; logger: Logger };
  private tasks: Promise<void>[] = [];

  constructor(deps: { pool: Pool; databaseUrl: string; logger: Logger }) {
    this.deps = deps;
  }

  start(): void {
    this.tasks = [this.listen(), this.poll()];
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await Promise.allSettled(this.tasks);
  }

  add(watcher: Watcher): () => void {
    const set = this.watchers.get(watcher.sessionId) ?? new Set();
    set.add(watcher);
    this.watchers.set(watcher.sessionId, set);
    return () => {
      set.delete(watcher);
      if (set.size === 0 && this.watchers.get(watcher.sessionId) === set) this.watchers.delete(watcher.sessionId);
    };
  }

  observe(observer: Observer): () => void {
    this.observers.add(observer);
    return () => void this.observers.delete(observer);
  }

  /** For what happens to a session without an event of its log: tells the observers of this process. */
  tell(sessionId: string): void {
    for (const observer of this.observers) observer.changed(sessionId);
  }

  /** Resolves when the observers have sent what the log of this session has now; false: nobody follows it. */
  async settled(sessionId: string): Promise<boolean> {
    const followed = await Promise.all(Array.from(this.observers, (observer) => observer.settled(sessionId)));
    return followed.includes(true);
  }

  private async listen(): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      try {
        await listenOn(
          this.deps.databaseUrl,
          [EVENTS_CHANNEL, DELTAS_CHANNEL],
          (channel, payload) => this.notice(channel, payload),
          {
            applicationName: 'longhaul-api-events',
            signal,
            // Whatever was said while nobody listened must be read now.
            onReady: () => this.wakeAll(),
          },
        );
      } catch (error) {
        if (!signal.aborted) this.deps.logger.warn({ err: error }, 'event connection lost; connecting again');
      }
      await pause(RECONNECT_MS, signal);
    }
  }

  private async poll(): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      await pause(POLL_MS, signal);
      const ids = [...this.watchers.keys()];
      if (ids.length === 0 || signal.aborted) continue;
      try {
        for (const [id, seq] of await lastSeqs(this.deps.pool, ids)) {
          for (const watcher of this.watchers.get(id) ?? []) if (watcher.lastSent < seq) watcher.wake();
        }
      } catch (error) {
        this.deps.logger.warn({ err: error }, 'event poll failed');
      }
    }
  }

  private notice(channel: string, payload: string): void {
    if (channel === EVENTS_CHANNEL) {
      const sessionId = payload.slice(0, payload.lastIndexOf(':'));
      for (const watcher of this.watchers.get(sessionId) ?? []) watcher.wake();
      this.tell(sessionId);
      return;
    }
    const delta = readDelta(payload);
    if (delta === undefined) return;
    for (const watcher of this.watchers.get(delta.sessionId) ?? []) watcher.delta(delta);
    for (const observer of this.observers) observer.delta(delta);
  }

  /** Ends every open stream. */
  endAll(): void {
    for (const observer of this.observers) observer.end();
    for (const set of this.watchers.values()) for (const watcher of set) watcher.end();
  }

  private wakeAll(): void {
    for (const observer of this.observers) observer.unsure();
    for (const set of this.watchers.values()) for (const watcher of set) watcher.wake();
  }
}

async function pause(waitMs: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(waitMs, undefined, { signal });
  } catch {
    // Stopping.
  }
}

function readDelta(payload: string): LiveDelta | undefined {
  try {
    return JSON.parse(payload) as LiveDelta;
  } catch {
    return undefined;
  }
}
