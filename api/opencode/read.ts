import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../../db/pool.ts';
import { readEventsAfter } from '../../db/queries/events.ts';
import type { TurnView } from '../../db/queries/opencode-turns.ts';
import { listTurnViews } from '../../db/queries/opencode-turns.ts';
import type { SessionRow } from '../../db/queries/sessions.ts';
import { Conversation } from './conversation.ts';

const BATCH = 500;

/** Where the log of these turns begins: with the message the first of them answers, which may have waited for long. */
export function firstSeqOf(turns: readonly TurnView[], before: TurnView | undefined): number {
  const [first] = turns;
  if (first === undefined || before === undefined) return 0;
  const after = before.endSeq ?? 0;
  return Math.min(after, (first.firstInputSeq ?? after + 1) - 1);
}

/** The last turns of a session, read from its log, with what follows them. */
export async function readConversation(
  db: Queryable,
  session: Pick<SessionRow, 'id'>,
  turnLimit: number,
): Promise<{ conversation: Conversation; turns: TurnView[] }> {
  const found = await listTurnViews(db, session.id, turnLimit + 1);
  const before = found.length > turnLimit ? found[0] : undefined;
  const turns = before === undefined ? found : found.slice(1);
  const conversation = new Conversation(session.id);
  let seq = firstSeqOf(turns, before);
  for (let read = 0; read < LIMITS.opencodeEventsRead;) {
    const { events, more } = await readEventsAfter(db, session.id, seq, BATCH);
    for (const event of events) conversation.apply(event);
    seq = events.at(-1)?.seq ?? seq;
    read += events.length;
    if (!more || events.length === 0) break;
  }
  return { conversation, turns };
}
