import { newId } from '../../contracts/ids.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Channel of "session X has events up to seq N": payload `<sessionId>:<seq>`. */
export const EVENTS_CHANNEL = 'longhaul_events';
/** Channel of live text that is not in the log: payload is JSON `LiveDelta`, at most 7,900 bytes. */
export const DELTAS_CHANNEL = 'longhaul_deltas';

/** Live preview of an event that will be appended later under `eventId`; lost when nobody listens. */
export interface LiveDelta {
  sessionId: string;
  eventId: string;
  eventType: 'agent.message' | 'agent.thinking';
  /** Absent on the first frame (`event_start`). */
  text?: string;
}

export interface EventRow {
  sessionId: string;
  seq: number;
  id: string;
  type: string;
  payload: Record<string, unknown>;
  createdAt: Date;
  processedAt: Date | null;
}

export interface EventDraft {
  /** Default: a new id. */
  id?: string;
  type: string;
  payload?: Record<string, unknown>;
  /** An append with a key that is in the log already is a no-op: retried activities append once. */
  dedupeKey?: string;
  /** Server events are processed when written; client events when a turn takes them. */
  processed?: boolean;
}

/**
 * Appends in order with gap-free seq and notifies viewers at commit. Must run inside a transaction: the lock on the
 * session row is what makes seq gap-free. Returns the rows that were new.
 */
export async function appendEvents(tx: Queryable, sessionId: string, drafts: EventDraft[]): Promise<EventRow[]> {
  if (drafts.length === 0) return [];
  const locked = await tx.query<{ last_seq: number }>('SELECT last_seq FROM sessions WHERE id = $1 FOR UPDATE', [
    sessionId,
  ]);
  const start = requireRow(locked.rows[0], `session ${sessionId}`).last_seq;
  const fresh = await withoutDuplicates(tx, sessionId, drafts);
  if (fresh.length === 0) return [];
  const rows = fresh.map((draft, index) => ({
    seq: start + index + 1,
    id: draft.id ?? newId('event'),
    type: draft.type,
    payload: draft.payload ?? {},
    dedupe_key: draft.dedupeKey ?? null,
    processed: draft.processed ?? true,
  }));
  const inserted = await tx.query(
    `INSERT INTO events (session_id, seq, id, type, payload, dedupe_key, processed_at)
     SELECT $1, r.seq, r.id, r.type, r.payload, r.dedupe_key, CASE WHEN r.processed THEN now() END
     FROM jsonb_to_recordset($2::jsonb)
       AS r(seq bigint, id text, type text, payload jsonb, dedupe_key text, processed boolean)
     RETURNING session_id, seq, id, type, payload, created_at, processed_at`,
    [sessionId, JSON.stringify(rows)],
  );
  const last = start + rows.length;
  await tx.query(
    `WITH moved AS (UPDATE sessions SET last_seq = $2, updated_at = now() WHERE id = $1)
     SELECT pg_notify($3, $4)`,
    [sessionId, last, EVENTS_CHANNEL, `${sessionId}:${last}`],
  );
  return inserted.rows.map((row) => toCamel<EventRow>(row)).toSorted((a, b) => a.seq - b.seq);
}

async function withoutDuplicates(tx: Queryable, sessionId: string, drafts: EventDraft[]): Promise<EventDraft[]> {
  const keys = drafts.flatMap((draft) => draft.dedupeKey ?? []);
  if (keys.length === 0) return drafts;
  const known = await tx.query<{ dedupe_key: string }>(
    'SELECT dedupe_key FROM events WHERE session_id = $1 AND dedupe_key = ANY($2)',
    [sessionId, keys],
  );
  const present = new Set(known.rows.map((row) => row.dedupe_key));
  return drafts.filter((draft) => draft.dedupeKey === undefined || !present.has(draft.dedupeKey));
}

/** Payload that one read takes into memory; a single event may be larger. */
const READ_BYTES = 8 * 1024 * 1024;

/** The log of a session by seq: at most `limit` events and about 8 MB of them, at least one if there is one. */
export async function readEvents(
  db: Queryable,
  where: { conditions: string[]; params: unknown[] },
  read: { limit: number; descending?: boolean },
): Promise<{ events: EventRow[]; more: boolean }> {
  const order = read.descending === true ? 'DESC' : 'ASC';
  const { params } = where;
  const result = await db.query<{ found: number }>(
    `SELECT session_id, seq, id, type, payload, created_at, processed_at, found FROM (
       SELECT *, octet_length(payload::text) AS size, sum(octet_length(payload::text)) OVER (ORDER BY seq ${order}) AS total,
         count(*) OVER () AS found
       FROM (
         SELECT session_id, seq, id, type, payload, created_at, processed_at FROM events
         WHERE ${where.conditions.join(' AND ')} ORDER BY seq ${order} LIMIT $${params.length + 1}
       ) AS page
     ) AS sized
     WHERE total <= $${params.length + 2} OR total = size ORDER BY seq ${order}`,
    [...params, read.limit + 1, READ_BYTES],
  );
  let inLog = 0;
  const rows = result.rows.map(({ found, ...row }) => {
    inLog = found;
    return toCamel<EventRow>(row);
  });
  const events = rows.slice(0, read.limit);
  return { events, more: inLog > events.length };
}

/** Events with seq > `afterSeq`, oldest first, and whether there are more. */
export async function readEventsAfter(
  db: Queryable,
  sessionId: string,
  afterSeq: number,
  limit: number,
): Promise<{ events: EventRow[]; more: boolean }> {
  return readEvents(db, { conditions: ['session_id = $1', 'seq > $2'], params: [sessionId, afterSeq] }, { limit });
}

/** Marks client events as taken by a turn. */
export async function markEventsProcessed(tx: Queryable, eventIds: string[]): Promise<void> {
  await tx.query('UPDATE events SET processed_at = now() WHERE id = ANY($1) AND processed_at IS NULL', [eventIds]);
}

/** Sends live text to viewers; best effort by design: the durable event follows. */
export async function notifyDelta(db: Queryable, delta: LiveDelta): Promise<void> {
  await db.query('SELECT pg_notify($1, $2)', [DELTAS_CHANNEL, JSON.stringify(delta)]);
}
