import type { SessionEvent } from '../../contracts/events.ts';
import type { EventRow } from '../../db/queries/events.ts';
import { isoOrNull } from './times.ts';

/** One log row as clients see it. */
export function renderEvent(row: EventRow): SessionEvent {
  return {
    ...row.payload,
    id: row.id,
    type: row.type,
    seq: row.seq,
    created_at: row.createdAt.toISOString(),
    processed_at: isoOrNull(row.processedAt),
  };
}
