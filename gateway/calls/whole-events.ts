import type { AnswerTaker } from './run-call.ts';

const LF = 0x0a;
const CR = 0x0d;
const LONGEST_BOUNDARY = 3;
/** An event larger than this passes in pieces. */
const MAX_HELD_BYTES = 4 * 1024 * 1024;
const USAGE_FIELD = Buffer.from('"usage"');

/**
 * Gives a stream on event by event: whatever breaks it off, an error event of ours can follow, and a client reads it.
 * Takes out the usage a chat stream reports only because the gateway asked for it.
 */
export class WholeEvents {
  readonly #taker: AnswerTaker;
  readonly #hidesUsage: boolean;
  #held: Buffer[] = [];
  #heldBytes = 0;

  constructor(taker: AnswerTaker, hidesUsage: boolean) {
    this.#taker = taker;
    this.#hidesUsage = hidesUsage;
  }

  push(chunk: Buffer, isLast: boolean): boolean {
    const end = this.#endIn(chunk);
    if (end === 0) {
      this.#hold(chunk);
      return true;
    }
    const whole = end === chunk.length ? chunk : chunk.subarray(0, end);
    const events = this.#heldBytes === 0 ? whole : Buffer.concat([...this.#held, whole]);
    this.#held = [];
    this.#heldBytes = 0;
    if (end < chunk.length) this.#hold(chunk.subarray(end));
    return this.#pass(events, isLast);
  }

  /** The stream has ended by itself: what is left belongs to it. */
  end(): void {
    if (this.#heldBytes > 0) this.#pass(Buffer.concat(this.#held), true);
    this.#held = [];
    this.#heldBytes = 0;
  }

  #hold(chunk: Buffer): void {
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
  }

  /** How much of the chunk belongs to whole events. */
  #endIn(chunk: Buffer): number {
    if (this.#heldBytes + chunk.length > MAX_HELD_BYTES) return chunk.length;
    // A boundary may lie across two chunks.
    const before = this.#heldBytes === 0 ? undefined : this.#tail();
    const bytes = before === undefined ? chunk : Buffer.concat([before, chunk]);
    return Math.max(0, lastBoundary(bytes) - (before?.length ?? 0));
  }

  #tail(): Buffer {
    const last = this.#held.at(-1);
    if (last !== undefined && last.length >= LONGEST_BOUNDARY) return last.subarray(-LONGEST_BOUNDARY);
    return Buffer.concat(this.#held.slice(-LONGEST_BOUNDARY)).subarray(-LONGEST_BOUNDARY);
  }

  #pass(events: Buffer, isLast: boolean): boolean {
    if (!this.#hidesUsage || !events.includes(USAGE_FIELD)) return this.#taker.onData(events, isLast);
    const shown = withoutUsage(events);
    return shown.length === 0 || this.#taker.onData(shown, isLast);
  }
}

/** Where the last event ends: behind an empty line, `\n\n`, `\r\r` or `\n\r\n`; 0 when none does. Looks from the end. */
function lastBoundary(bytes: Buffer): number {
  for (let at = bytes.length - 1; at > 0; at -= 1) {
    const byte = bytes[at];
    if (byte !== LF && byte !== CR) continue;
    const before = bytes[at - 1];
    if (before === byte || (byte === LF && before === CR && bytes[at - 2] === LF)) return at + 1;
  }
  return 0;
}

/** The same events as without `include_usage`: no chunk of usage alone, no empty field in the others. */
export function withoutUsage(events: Buffer): Buffer {
  const lines = events.toString('latin1').split(/(?<=\n)/);
  const kept: string[] = [];
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at] ?? '';
    // Quotes inside a string are escaped, so this can be a field only.
    if (!line.startsWith('data:') || !line.includes('"usage"')) kept.push(line);
    else if (isUsageAlone(line)) at += 1;
    else kept.push(line.replace(/,\s*"usage":\s*null/, ''));
  }
  return Buffer.from(kept.join(''), 'latin1');
}

function isUsageAlone(line: string): boolean {
  try {
    const { choices, usage } = JSON.parse(line.slice(5)) as { choices?: unknown; usage?: unknown };
    return Array.isArray(choices) && choices.length === 0 && typeof usage === 'object' && usage !== null;
  } catch {
    return false;
  }
}
