/** One moment at which a turn stopped for a person, or the session ran on. */
export interface TurnMark {
  kind: 'paused' | 'running';
  atMs: number;
}

export interface TurnSegment {
  index: number;
  startMs: number;
  /** null: it runs. */
  endMs: number | null;
}

interface TurnTimes {
  startedMs: number;
  endedMs: number | null;
}

/**
 * Cuts a turn at its waits: a wait can take days, and a span that holds it would tell nothing and come too late. `marks` are in
 * the order of the log. A turn that ends while it waits has a last segment of no length.
 */
export function segmentsOf(turn: TurnTimes, marks: readonly TurnMark[]): TurnSegment[] {
  const segments: TurnSegment[] = [];
  let startMs: number | null = turn.startedMs;
  for (const mark of marks) {
    // The turn after this one has marks, too.
    if (turn.endedMs !== null && mark.atMs > turn.endedMs) break;
    if (mark.kind === 'running') startMs ??= mark.atMs;
    else {
      segments.push({ index: segments.length, startMs: startMs ?? mark.atMs, endMs: mark.atMs });
      startMs = null;
    }
  }
  const last = startMs ?? turn.endedMs;
  if (last !== null) segments.push({ index: segments.length, startMs: last, endMs: turn.endedMs });
  return segments;
}

/** The segment in which something began. */
export function segmentAt(segments: readonly TurnSegment[], atMs: number): number {
  return segments.findLast((segment) => segment.startMs <= atMs)?.index ?? 0;
}
