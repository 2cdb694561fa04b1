import { LIMITS } from '../../contracts/limits.ts';
import type { AuditEntry, AuditStart } from './writer.ts';

const MINUTE_MS = 60_000;

interface Minute {
  sinceMs: number;
  rows: number;
  /** The row that stands for all refusals of a kind. */
  kinds: Map<string, AuditEntry>;
}

/**
 * Keeps a sandbox from filling the audit with refusals: so many a minute have a row each, the others are counted in rows of
 * their kind. The rows themselves are written at once like any other; only their counts follow.
 */
export class RefusalCounts {
  readonly #minutes = new Map<string, Minute>();
  readonly #nowMs: () => number;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** The row the refusal goes into; null: one of its own, which has to be told by `began`. */
  find(given: AuditStart): AuditEntry | null {
    const minute = this.#minuteOf(given.sandboxId);
    if (minute.rows < LIMITS.egressRefusalsPerMinute) return null;
    const entry = minute.kinds.get(kindOf(given)) ?? null;
    if (entry !== null || minute.kinds.size < LIMITS.egressRefusalKindsPerMinute) return entry;
    return minute.kinds.get(codeOf(given)) ?? null;
  }

  /** A row for a refusal, which others may be counted in. */
  began(given: AuditStart, entry: AuditEntry): void {
    const minute = this.#minuteOf(given.sandboxId);
    if (minute.rows < LIMITS.egressRefusalsPerMinute) minute.rows += 1;
    else if (minute.kinds.size < LIMITS.egressRefusalKindsPerMinute) minute.kinds.set(kindOf(given), entry);
    else minute.kinds.set(codeOf(given), entry);
  }

  forget(sandboxId: string): void {
    this.#minutes.delete(sandboxId);
  }

  #minuteOf(sandboxId: string): Minute {
    const nowMs = this.#nowMs();
    const known = this.#minutes.get(sandboxId);
    if (known !== undefined && nowMs - known.sinceMs < MINUTE_MS) return known;
    const minute = { sinceMs: nowMs, rows: 0, kinds: new Map<string, AuditEntry>() };
    this.#minutes.set(sandboxId, minute);
    return minute;
  }
}

/** One more refusal in a row: what differs from those before is said no more. */
export function countIn({ row }: AuditEntry, given: AuditStart): void {
  row.count += 1;
  if (row.rule !== given.rule) row.rule = 'several';
  if (row.method !== given.method) row.method = null;
  if (row.host !== given.host) row.host = null;
  if (row.port !== given.port) row.port = null;
  if (row.path !== given.path) row.path = null;
}

function kindOf({ host, code, decision, approvalId }: AuditStart): string {
  return JSON.stringify([host, code, decision, approvalId]);
}

/** Codes are few, whatever a sandbox asks for. */
function codeOf({ code, decision }: AuditStart): string {
  return JSON.stringify([code, decision]);
}
