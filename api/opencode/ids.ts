/**
 * Ids that clients sort by: made of the place in the log, so that they never change and come in the order of the
 * conversation; the session's own part keeps them apart from those of other sessions.
 */

function tail(sessionId: string): string {
  return sessionId.slice(sessionId.indexOf('_') + 1);
}

function place(seq: number): string {
  return String(seq).padStart(12, '0');
}

export function messageId(sessionId: string, seq: number): string {
  return `msg_${place(seq)}_${tail(sessionId)}`;
}

/** `index` orders the parts that one event makes. */
export function partId(sessionId: string, seq: number, index: number): string {
  return `prt_${place(seq)}_${String(index).padStart(3, '0')}_${tail(sessionId)}`;
}

/** Beyond the blocks a message can have: the text that follows an event sorts behind all the event itself has made. */
const FOLLOWING = 999;

/** Of the text that comes after the event `seq`: known while it still streams and has no event of its own. */
export function followingTextId(sessionId: string, seq: number): string {
  return partId(sessionId, seq, FOLLOWING);
}
