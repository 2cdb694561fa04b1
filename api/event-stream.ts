import type { Response } from 'express';
import { LIMITS } from '../contracts/limits.ts';
import type { Pool } from '../db/pool.ts';
import type { LiveDelta } from '../db/queries/events.ts';
import { readEventsAfter } from '../db/queries/events.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Watcher } from './event-hub.ts';
import { renderEvent } from './render/events.ts';

const BATCH = 100;
/** A viewer that takes nothing for this long is gone; it may come back with Last-Event-ID. */
const STALL_MS = 30_000;
const RETRY_MS = 1_000;
/** After these the log has nothing more to say. */
const LAST_TYPES = new Set(['session.status_terminated', 'session.deleted']);
/** Previews remembered as started or finished, per stream. */
const PREVIEWS = 256;

/**
 * One viewer of one session's log. Every frame has `event:` and `id:` (= seq), so a viewer that comes back with the last
 * id misses nothing and sees nothing twice.
 */
export class EventStream implements Watcher {
  readonly sessionId: string;
  lastSent: number;
  private readonly res: Response;
  private readonly pool: Pool;
  private readonly log: Logger;
  private readonly previews: ReadonlySet<string>;
  private readonly started = new Set<string>();
  private readonly finished = new Set<string>();
  private held: LiveDelta[] = [];
  private reading = false;
  private dirty = false;
  private ended = false;
  private readonly ping: NodeJS.Timeout;
  private retry: NodeJS.Timeout | undefined;

  constructor(options: {
    res: Response;
    pool: Pool;
    log: Logger;
    sessionId: string;
    after: number;
    previews: readonly string[];
  }) {
    this.res = options.res;
    this.pool = options.pool;
    this.log = options.log;
    this.sessionId = options.sessionId;
    this.lastSent = options.after;
    this.previews = new Set(options.previews);
    this.ping = setInterval(() => {
      if (!this.res.writableNeedDrain) this.write('ping', { type: 'ping' });
    }, LIMITS.ssePingMs);
    this.res.once('close', () => this.stop());
  }

  /** Sends the headers: the viewer knows that nothing after this moment is missed. */
  open(): void {
    this.res.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    });
    this.write('ping', { type: 'ping' });
    this.wake();
  }

  wake(): void {
    this.dirty = true;
    if (this.reading || this.ended) return;
    this.reading = true;
    void this.readOn();
  }

  delta(delta: LiveDelta): void {
    // The read that runs now may bring the event itself: a preview must not follow it.
    if (this.reading) {
      if (this.held.length < PREVIEWS) this.held.push(delta);
      return;
    }
    if (this.ended || !this.previews.has(delta.eventType) || this.finished.has(delta.eventId)) return;
    // A preview may be lost, the log may not: a slow viewer gets the log only.
    if (this.res.writableLength > LIMITS.sseBufferBytes) return;
    if (!this.started.has(delta.eventId)) {
      remember(this.started, delta.eventId);
      this.write('event_start', { type: 'event_start', event: { id: delta.eventId, type: delta.eventType } });
    }
    if (delta.text === undefined) return;
    this.write('event_delta', {
      type: 'event_delta',
      event_id: delta.eventId,
      delta: { type: 'content_delta', index: 0, content: { type: 'text', text: delta.text } },
    });
  }

  /** Ends the answer; also when the server stops. */
  end(): void {
    if (this.ended) return;
    this.stop();
    this.res.end();
  }

  private async readOn(): Promise<void> {
    try {
      while (this.dirty && !this.ended) {
        this.dirty = false;
        await this.readBatch();
      }
    } catch (error) {
      this.log.warn({ sessionId: this.sessionId, err: error }, 'events not readable now; trying again');
      this.retry = setTimeout(() => this.wake(), RETRY_MS);
    } finally {
      this.reading = false;
      const held = this.held;
      this.held = [];
      for (const delta of held) this.delta(delta);
    }
  }

  private async readBatch(): Promise<void> {
    const { events, more } = await readEventsAfter(this.pool, this.sessionId, this.lastSent, BATCH);
    if (more) this.dirty = true;
    for (const row of events) {
      if (this.ended) return;
      this.lastSent = row.seq;
      // Also of events no preview was sent for: one may be held back by this very read.
      if (this.previews.has(row.type)) remember(this.finished, row.id);
      this.write(row.type, renderEvent(row));
      await this.drained();
      if (LAST_TYPES.has(row.type)) return this.end();
    }
  }

  private write(event: string, data: object): void {
    if (this.ended) return;
    this.res.write(`event: ${event}\nid: ${this.lastSent}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Waits for a slow viewer, so that at most one event is buffered beyond the socket. */
  private async drained(): Promise<void> {
    if (!this.res.writableNeedDrain || this.ended) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.res.off('drain', done).off('close', done);
        resolve();
      };
      const timer = setTimeout(() => {
        this.log.warn({ sessionId: this.sessionId }, 'viewer takes nothing; closing its stream');
        this.res.destroy();
      }, STALL_MS);
      this.res.once('drain', done).once('close', done);
    });
  }

  private stop(): void {
    this.ended = true;
    clearInterval(this.ping);
    clearTimeout(this.retry);
  }
}

function remember(set: Set<string>, id: string): void {
  set.add(id);
  if (set.size <= PREVIEWS) return;
  const oldest = set.values().next().value;
  if (oldest !== undefined) set.delete(oldest);
}
