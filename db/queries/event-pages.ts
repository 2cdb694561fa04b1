import type { CreatedRange, Page, PageRequest } from '../paging.ts';
import { decodeSeqCursor, encodeSeqCursor, Filter } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import type { EventRow } from './events.ts';
import { readEvents } from './events.ts';

/** One page of a session's log by seq; default oldest first. Shorter than asked when its events are large. */
export async function listEvents(
  db: Queryable,
  where: { sessionId: string; types?: string[] | undefined } & CreatedRange,
  page: PageRequest,
): Promise<Page<EventRow>> {
  const descending = page.order === 'desc';
  const filter = new Filter()
    .add('session_id = ?', where.sessionId)
    .add('type = ANY(?)', where.types)
    .addCreated(where)
    .add(descending ? 'seq < ?' : 'seq > ?', page.cursor === undefined ? undefined : decodeSeqCursor(page.cursor));
  const { events, more } = await readEvents(db, filter, { limit: page.limit, descending });
  const last = events.at(-1);
  return { data: events, nextPage: more && last !== undefined ? encodeSeqCursor(last.seq) : null, prevPage: null };
}
