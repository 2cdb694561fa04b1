import type { Pool } from '../../db/pool.ts';
import { getApproval } from '../../db/queries/approvals.ts';
import type { EventRow, LiveDelta } from '../../db/queries/events.ts';
import { readEventsAfter } from '../../db/queries/events.ts';
import type { TurnView } from '../../db/queries/opencode-turns.ts';
import { listTurnViews } from '../../db/queries/opencode-turns.ts';
import type { SessionRow } from '../../db/queries/sessions.ts';
import { countQueuedMessages, findSession } from '../../db/queries/sessions.ts';
import { assertNever } from '../../contracts/states.ts';
import type { Change } from './conversation.ts';
import { Conversation } from './conversation.ts';
import { firstSeqOf } from './read.ts';
import { finishPart, renderInfo, renderPermission } from './render.ts';
import { renderSession } from './session-view.ts';
import type { WireEvent } from './wire.ts';

const BATCH = 100;
/** The turn that runs and the one before it: enough to know every part that may still change. */
const TURNS = 2;
const PREVIEWS = 256;

/**
 * After a seq that was told before; or what came since a time, with `replay` also the last turn before it, as it stands.
 * What is older than `sureMs` may have been told.
 */
export type Start = { afterSeq: number } | { sinceMs: number; sureMs: number; replay: boolean };

/** A place in the log, all events up to which have been told. */
export interface Place {
  sessionId: string;
  seq: number;
  atMs: number;
}

type Emit = (event: WireEvent, place: Place | undefined) => Promise<void>;

/** Reads one session's log on and tells it as events of OpenCode. */
export class Follower {
  lastSeq: number;
  private readonly pool: Pool;
  private session: SessionRow;
  private readonly start: Start;
  private conversation: Conversation;
  private turns: TurnView[] = [];
  private announced: boolean;
  /** Where live text of an event was shown before the event came. */
  private readonly previews = new Map<string, { partId: string; messageId: string }>();
  private readonly finished = new Set<string>();

  private constructor(pool: Pool, session: SessionRow, start: Start, from: number) {
    this.pool = pool;
    this.session = session;
    this.start = start;
    this.lastSeq = from;
    this.conversation = new Conversation(session.id);
    this.announced = !('sinceMs' in start && session.createdAt.getTime() >= start.sinceMs);
  }

  /** Undefined: no session of this team. */
  static async open(pool: Pool, teamId: string, sessionId: string, start: Start): Promise<Follower | undefined> {
    const session = await findSession(pool, sessionId);
    if (session?.teamId !== teamId) return undefined;
    const found = await listTurnViews(pool, sessionId, TURNS + 1);
    const before = found.length > TURNS ? found[0] : undefined;
    const first = firstSeqOf(before === undefined ? found : found.slice(1), before);
    return new Follower(pool, session, start, 'afterSeq' in start ? Math.min(start.afterSeq, first) : first);
  }

  /** Nothing runs and nothing is asked: the log alone says how it goes on. */
  get resting(): boolean {
    return this.conversation.liveText === undefined;
  }

  async read(emit: Emit): Promise<void> {
    for (;;) {
      const { events, more } = await readEventsAfter(this.pool, this.session.id, this.lastSeq, BATCH);
      if (events.length > 0) {
        this.turns = await listTurnViews(this.pool, this.session.id, TURNS + 1);
        this.session = (await findSession(this.pool, this.session.id)) ?? this.session;
      }
      if (!this.announced) {
        this.announced = true;
        await emit(await this.sessionEvent('session.created'), undefined);
      }
      for (const event of events) await this.take(event, emit);
      if (!more) return;
    }
  }

  private async take(event: EventRow, emit: Emit): Promise<void> {
    const changes = this.conversation.apply(event);
    this.lastSeq = event.seq;
    const atMs = event.createdAt.getTime();
    const isNew = 'afterSeq' in this.start ? event.seq > this.start.afterSeq : atMs >= this.start.sinceMs;
    if (!isNew && !('replay' in this.start && this.start.replay)) return;
    const told = event.type === 'agent.message' ? this.withdrawPreview(event) : [];
    for (const change of changes) told.push(...(await this.tell(change, event, isNew)));
    // With the last one only: who comes back in between gets the event again, whole.
    const place = { sessionId: this.session.id, seq: event.seq, atMs };
    for (const [index, one] of told.entries()) await emit(one, index === told.length - 1 ? place : undefined);
  }

  private async tell(change: Change, event: EventRow, isNew: boolean): Promise<WireEvent[]> {
    const sessionID = this.session.id;
    const about = { sessionId: sessionID, agent: this.session.agent };
    switch (change.kind) {
      case 'message': {
        const info = renderInfo(about, change.message, this.turns);
        const parts = change.message.role === 'assistant' ? finishPart(change.message, info) : [];
        return [
          ...parts.map((part) => ({
            type: 'message.part.updated',
            properties: { sessionID, part, time: change.message.createdMs },
          })),
          { type: 'message.updated', properties: { sessionID, info } },
        ];
      }
      case 'part':
        return [
          {
            type: 'message.part.updated',
            properties: { sessionID, part: structuredClone(change.part), time: change.timeMs },
          },
        ];
      case 'asked': {
        const row = await getApproval(this.pool, change.approvalId);
        if (row?.state !== 'pending') return [];
        return [{ type: 'permission.asked', properties: { ...renderPermission(row, this.conversation) } }];
      }
      case 'replied':
        return [
          {
            type: 'permission.replied',
            properties: { sessionID, requestID: change.approvalId, reply: change.reply },
          },
        ];
      case 'status':
        return this.tellStatus(change, event, isNew);
      case 'error':
        return isNew ? [{ type: 'session.error', properties: { sessionID, error: change.error } }] : [];
      case 'todos':
        return [{ type: 'todo.updated', properties: { sessionID, todos: change.todos } }];
      case 'session':
        return [await this.sessionEvent('session.updated')];
      case 'deleted':
        return [await this.sessionEvent('session.deleted')];
      default:
        return assertNever(change);
    }
  }

  private async tellStatus(
    { status }: Extract<Change, { kind: 'status' }>,
    event: EventRow,
    isNew: boolean,
  ): Promise<WireEvent[]> {
    const sessionID = this.session.id;
    const said = { type: 'session.status', properties: { sessionID, status } };
    if (status.type !== 'idle') return [said];
    // An end that was told before must not be taken for that of what was asked since.
    const sure = 'afterSeq' in this.start || event.createdAt.getTime() >= this.start.sureMs;
    if (!sure && this.session.lastSeq !== event.seq) return [];
    const updated = await this.sessionEvent('session.updated');
    // Its clients take idle for the end of all that was asked; a message that waits begins the next turn at once.
    if ((await countQueuedMessages(this.pool, sessionID)) > 0) return [updated];
    return isNew ? [updated, said, { type: 'session.idle', properties: { sessionID } }] : [updated, said];
  }

  private async sessionEvent(type: string): Promise<WireEvent> {
    const info = await renderSession(this.pool, this.session);
    return { type, properties: { sessionID: this.session.id, info } };
  }

  /** Live text, shown where its event will be. */
  preview(delta: LiveDelta): WireEvent[] {
    if (this.finished.has(delta.eventId)) return [];
    const sessionID = this.session.id;
    const known = this.previews.get(delta.eventId);
    const place = known ?? this.conversation.liveText;
    if (place === undefined) return [];
    const { messageId: messageID, partId: partID } = place;
    const events: WireEvent[] = [];
    if (known === undefined) {
      if (this.previews.size >= PREVIEWS) return [];
      this.previews.set(delta.eventId, place);
      const now = Date.now();
      const part = { id: partID, sessionID, messageID, type: 'text', text: '', time: { start: now } };
      events.push({ type: 'message.part.updated', properties: { sessionID, part, time: now } });
    }
    if (delta.text !== undefined) {
      const properties = { sessionID, messageID, partID, field: 'text', delta: delta.text };
      events.push({ type: 'message.part.delta', properties });
    }
    return events;
  }

  /** The event has come: where something else came between, its text has another place than was thought. */
  private withdrawPreview(event: EventRow): WireEvent[] {
    this.finished.add(event.id);
    const shown = this.previews.get(event.id);
    this.previews.delete(event.id);
    const last = this.conversation.messages.at(-1)?.parts.at(-1);
    if (shown === undefined || last?.id === shown.partId) return [];
    const { messageId: messageID, partId: partID } = shown;
    return [{ type: 'message.part.removed', properties: { sessionID: this.session.id, messageID, partID } }];
  }
}
