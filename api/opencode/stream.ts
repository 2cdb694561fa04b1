import type { Response } from 'express';
import { LIMITS } from '../../contracts/limits.ts';
import type { SessionStatus } from '../../contracts/states.ts';
import type { Pool } from '../../db/pool.ts';
import type { LiveDelta } from '../../db/queries/events.ts';
import { databaseTime, sessionsChangedSince } from '../../db/queries/opencode-turns.ts';
import { listSessions } from '../../db/queries/sessions.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Observer } from '../event-hub.ts';
import { Follower, type Place, type Start } from './follower.ts';
import type { WireEvent } from './wire.ts';

const AT_WORK: SessionStatus[] = ['running', 'rescheduling'];
const HEARTBEAT_MS = 10_000;
/** A viewer that takes nothing for this long is gone; it may come back. */
const STALL_MS = 30_000;
const RETRY_MS = 1_000;
/** A transaction dates its events at its start and shows them at its end. */
const COMMIT_MARGIN_MS = 60_000;
/** Sessions of other teams are remembered, so that their notices cost no query. */
const STRANGERS = 10_000;
/** Sessions at rest whose place is remembered; of others what came since the viewer did is told again. */
const POSITIONS = 10_000;
const HELD_DELTAS = 256;

interface StreamOptions {
  res: Response;
  pool: Pool;
  log: Logger;
  teamId: string;
  /** Frames of the global stream name a directory. */
  directory: string | undefined;
  /** Of the last frame the viewer has; it wants all that came later. */
  after: Place | undefined;
}

/**
 * One viewer of all sessions of a team. What it sends are states of messages and parts, so telling one again does no harm:
 * a viewer that comes back gets the last turn of sessions at work whole, whether it says where it was or not.
 */
export class TeamStream implements Observer {
  private readonly options: StreamOptions;
  private readonly followers = new Map<string, Follower>();
  /** Where sessions at rest were left. */
  private readonly positions = new Map<string, number>();
  private readonly strangers = new Set<string>();
  private readonly dirty = new Set<string>();
  private readonly held = new Map<string, LiveDelta[]>();
  private waiting: { sessionId: string; done: () => void }[] = [];
  private working = false;
  private opened = false;
  private ended = false;
  private frames = 0;
  private place: Place = { sessionId: '', seq: 0, atMs: 0 };
  private sinceMs = 0;
  private sureMs = 0;
  private readonly heartbeat: NodeJS.Timeout;
  private retry: NodeJS.Timeout | undefined;

  constructor(options: StreamOptions) {
    this.options = options;
    this.heartbeat = setInterval(() => {
      if (this.opened && !options.res.writableNeedDrain) this.send({ type: 'server.heartbeat', properties: {} });
    }, HEARTBEAT_MS);
    options.res.once('close', () => this.stop());
  }

  /** Sends the headers: what happens from now on is not missed. */
  async open(): Promise<void> {
    const { res, pool, teamId, after, directory } = this.options;
    const now = (await databaseTime(pool)).getTime();
    this.sinceMs = after === undefined ? now : after.atMs - COMMIT_MARGIN_MS;
    this.sureMs = after?.atMs ?? now;
    this.place = after ?? { sessionId: '', seq: 0, atMs: now };
    if (after !== undefined && after.seq > 0) this.positions.set(after.sessionId, after.seq);
    const follows = after === undefined && directory === undefined;
    if (follows) await this.beginHere();
    res.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    });
    this.send({ type: 'server.connected', properties: {} });
    this.opened = true;
    this.work();
    if (follows) return;
    // The terminal of these clients comes back without saying where it was, and only to the global stream.
    const since = new Date(after === undefined ? now - LIMITS.opencodeReplayMs : this.sinceMs);
    for (const id of await sessionsChangedSince(pool, teamId, since, LIMITS.opencodeReplaySessions)) this.changed(id);
  }

  /** By place where sessions work: a transaction that runs now dates its events before this moment. */
  private async beginHere(): Promise<void> {
    const where = { teamId: this.options.teamId, includeArchived: true, statuses: AT_WORK };
    const { data } = await listSessions(this.options.pool, where, { limit: LIMITS.pageSizeMax });
    for (const { id, lastSeq } of data) this.positions.set(id, lastSeq);
  }

  changed(sessionId: string): void {
    if (this.ended || this.strangers.has(sessionId)) return;
    this.dirty.add(sessionId);
    this.work();
  }

  delta(delta: LiveDelta): void {
    if (this.ended || delta.eventType !== 'agent.message' || this.strangers.has(delta.sessionId)) return;
    const follower = this.followers.get(delta.sessionId);
    // A read that runs may bring the event itself: a preview must not follow it.
    if (follower === undefined || this.working) {
      const held = this.held.get(delta.sessionId) ?? [];
      if (held.length < HELD_DELTAS) held.push(delta);
      this.held.set(delta.sessionId, held);
      if (follower === undefined) this.changed(delta.sessionId);
      return;
    }
    this.preview(follower, delta);
  }

  unsure(): void {
    void this.look();
  }

  async settled(sessionId: string): Promise<boolean> {
    if (this.ended || this.strangers.has(sessionId)) return false;
    await new Promise<void>((done) => {
      this.waiting.push({ sessionId, done });
      this.changed(sessionId);
    });
    return !this.strangers.has(sessionId);
  }

  end(): void {
    if (this.ended) return;
    this.stop();
    this.options.res.end();
  }

  /** Finds what grew while nobody told. */
  private async look(): Promise<void> {
    const { pool, teamId, log } = this.options;
    try {
      const since = new Date(this.place.atMs - COMMIT_MARGIN_MS);
      for (const id of await sessionsChangedSince(pool, teamId, since, LIMITS.pageSizeMax)) this.changed(id);
    } catch (error) {
      log.warn({ err: error }, 'sessions not readable now');
    }
  }

  private work(): void {
    if (this.working || this.ended || !this.opened) return;
    this.working = true;
    void this.readAll();
  }

  private async readAll(): Promise<void> {
    let current: string | undefined;
    try {
      for (;;) {
        [current] = this.dirty;
        if (current === undefined || this.ended) return;
        this.dirty.delete(current);
        await this.readOne(current);
        this.release(current);
      }
    } catch (error) {
      this.options.log.warn({ sessionId: current, err: error }, 'events not readable now; trying again');
      if (current !== undefined) this.dirty.add(current);
      this.retry = setTimeout(() => this.work(), RETRY_MS);
    } finally {
      this.working = false;
    }
  }

  /** Those who waited for this session, unless it has grown meanwhile. */
  private release(sessionId: string): void {
    if (this.dirty.has(sessionId)) return;
    const ready = this.waiting.filter((one) => one.sessionId === sessionId);
    this.waiting = this.waiting.filter((one) => one.sessionId !== sessionId);
    for (const { done } of ready) done();
  }

  private async readOne(sessionId: string): Promise<void> {
    const { pool, teamId } = this.options;
    const follower =
      this.followers.get(sessionId) ?? (await Follower.open(pool, teamId, sessionId, this.start(sessionId)));
    if (follower === undefined) {
      remember(this.strangers, sessionId);
      this.held.delete(sessionId);
      return;
    }
    this.followers.set(sessionId, follower);
    await follower.read(async (event, place) => {
      if (this.ended) return;
      // Time goes on only: one session's old event must not take others back.
      if (place !== undefined) this.place = { ...place, atMs: Math.max(this.place.atMs, place.atMs) };
      this.send(event);
      await this.drained();
    });
    for (const delta of this.held.get(sessionId) ?? []) this.preview(follower, delta);
    this.held.delete(sessionId);
    if (!follower.resting) return;
    // Long conversations are not kept in memory for as long as somebody watches.
    this.positions.delete(sessionId);
    this.positions.set(sessionId, follower.lastSeq);
    if (this.positions.size > POSITIONS) this.positions.delete(this.positions.keys().next().value ?? '');
    this.followers.delete(sessionId);
  }

  private start(sessionId: string): Start {
    const afterSeq = this.positions.get(sessionId);
    if (afterSeq !== undefined) return { afterSeq };
    const { directory, after } = this.options;
    const { sinceMs, sureMs } = this;
    return { sinceMs, sureMs, replay: directory !== undefined && after === undefined };
  }

  private preview(follower: Follower, delta: LiveDelta): void {
    // A preview may be lost, the log may not: a slow viewer gets the log only.
    if (this.options.res.writableLength > LIMITS.sseBufferBytes) return;
    for (const event of follower.preview(delta)) this.send(event);
  }

  private send({ type, properties }: WireEvent): void {
    if (this.ended) return;
    const { res, directory } = this.options;
    this.frames += 1;
    const payload = { id: `evt_${String(this.frames).padStart(12, '0')}`, type, properties };
    const data = directory === undefined ? payload : { directory, project: 'global', payload };
    res.write(`id: ${frameId(this.place)}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Waits for a slow viewer, so that at most one event is buffered beyond the socket. */
  private async drained(): Promise<void> {
    const { res, log } = this.options;
    if (!res.writableNeedDrain || this.ended) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        res.off('drain', done).off('close', done);
        resolve();
      };
      const timer = setTimeout(() => {
        log.warn('viewer takes nothing; closing its stream');
        res.destroy();
      }, STALL_MS);
      res.once('drain', done).once('close', done);
    });
  }

  private stop(): void {
    this.ended = true;
    clearInterval(this.heartbeat);
    clearTimeout(this.retry);
    for (const { done } of this.waiting) done();
    this.waiting = [];
  }
}

/** `<ms>~<session>~<seq>`: where one session is exactly, and since when all others are to be looked at. */
function frameId({ atMs, sessionId, seq }: Place): string {
  return `${atMs}~${sessionId}~${seq}`;
}

/** What `Last-Event-ID` says; undefined when it is no id of a frame. */
export function readFrameId(text: string): Place | undefined {
  const [, ms, sessionId, place] = /^(\d{1,15})~([a-z0-9_]{0,64})~(\d{1,15})$/.exec(text) ?? [];
  if (ms === undefined || sessionId === undefined) return undefined;
  return { atMs: Number(ms), sessionId, seq: Number(place) };
}

function remember(set: Set<string>, id: string): void {
  set.add(id);
  if (set.size <= STRANGERS) return;
  const oldest = set.values().next().value;
  if (oldest !== undefined) set.delete(oldest);
}
