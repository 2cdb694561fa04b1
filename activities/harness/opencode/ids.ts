import { createHash } from 'node:crypto';

const TIME_BITS = 48n;
/** OpenCode's own ids count within a millisecond, too. */
const PER_MS = 0x1000n;

/** When an id of OpenCode was made, as it is written in the id: ids made later sort later. */
function timeOf(id: string): bigint {
  const hex = /^[a-z]+_([0-9a-f]{12})/.exec(id)?.[1];
  return hex === undefined ? 0n : BigInt(`0x${hex}`);
}

/** The part of a message's id that is the same in every attempt at its turn. */
export function idTail(messageId: string, purpose: string): string {
  return createHash('sha256').update(`${purpose}/${messageId}`).digest('hex').slice(0, 14);
}

/** A message id behind all of `earlier`; OpenCode keeps messages in the order of their ids. */
export function messageIdAfter(earlier: readonly string[], tail: string, nowMs: number): string {
  const now = (BigInt(nowMs) * PER_MS) % (1n << TIME_BITS);
  const last = earlier.reduce((latest, id) => (timeOf(id) > latest ? timeOf(id) : latest), 0n);
  const time = now > last ? now : last + 1n;
  return `msg_${time.toString(16).padStart(12, '0')}${tail}`;
}

/** The id of a part: belongs to its message, so that a repeat is the same part. */
export function partId(messageId: string, index: number): string {
  return `prt_${messageId.slice(4, 16)}${String(index).padStart(4, '0')}${messageId.slice(-10)}`;
}
