import type { Pool } from '../../db/pool.ts';
import type { LiveDelta } from '../../db/queries/events.ts';
import { notifyDelta } from '../../db/queries/events.ts';
import type { LiveText } from './stream.ts';

/** Text of this age is sent on, so a fast model does not cost one notification per token. */
const COALESCE_MS = 40;
/** A notification holds at most 8,000 bytes; JSON escapes can make six bytes of one. */
const MAX_CHARS = 1_200;

/**
 * Sends text to live viewers while it streams. Never depended on: the event that is appended at the end of the step
 * has the whole text (invariant 5), so a failed notification is dropped.
 */
export class LivePublisher implements LiveText {
  private readonly pool: Pool;
  private readonly sessionId: string;
  private readonly ids: Record<LiveDelta['eventType'], string>;
  private readonly started = new Set<string>();
  private pending = '';
  private pendingType: LiveDelta['eventType'] = 'agent.message';
  private timer: NodeJS.Timeout | undefined;
  private chain: Promise<void> = Promise.resolve();

  constructor(pool: Pool, sessionId: string, ids: Record<LiveDelta['eventType'], string>) {
    this.pool = pool;
    this.sessionId = sessionId;
    this.ids = ids;
  }

  onText(kind: 'text' | 'thinking', text: string): void {
    const eventType = kind === 'text' ? 'agent.message' : 'agent.thinking';
    if (eventType !== this.pendingType) this.flush();
    this.pendingType = eventType;
    this.pending += text;
    if (!this.started.has(eventType)) {
      this.started.add(eventType);
      this.send({ sessionId: this.sessionId, eventId: this.ids[eventType], eventType });
      this.flush();
    } else if (this.pending.length >= MAX_CHARS) this.flush();
    else this.timer ??= setTimeout(() => this.flush(), COALESCE_MS);
  }

  /** Sends what is pending and waits until it is out, so that no delta arrives after its event. */
  async close(): Promise<void> {
    this.flush();
    await this.chain;
  }

  private flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const text = this.pending;
    this.pending = '';
    const eventType = this.pendingType;
    for (let at = 0; at < text.length; at += MAX_CHARS) {
      const part = text.slice(at, at + MAX_CHARS);
      this.send({ sessionId: this.sessionId, eventId: this.ids[eventType], eventType, text: part });
    }
  }

  private send(delta: LiveDelta): void {
    this.chain = this.chain.then(() => notifyDelta(this.pool, delta)).catch(() => undefined);
  }
}
