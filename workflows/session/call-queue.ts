/** Tool calls that the harness of the open turn has asked for, by reference; free of Temporal. */
export class CallQueue {
  /** Asked and not at their end, in order: what the next run must know. */
  private readonly open = new Set<string>();
  private readonly fresh: string[] = [];

  constructor(carried: readonly string[] = []) {
    for (const callId of carried) this.take(callId);
  }

  /** Takes a call once; one that is asked again while it is open changes nothing. */
  take(callId: string): void {
    if (this.open.has(callId)) return;
    this.open.add(callId);
    this.fresh.push(callId);
  }

  hasFresh(): boolean {
    return this.fresh.length > 0;
  }

  /** The oldest that nobody works on yet. */
  next(): string | undefined {
    return this.fresh.shift();
  }

  close(callId: string): void {
    this.open.delete(callId);
  }

  clear(): void {
    this.open.clear();
    this.fresh.length = 0;
  }

  get size(): number {
    return this.open.size;
  }

  ids(): string[] {
    return [...this.open];
  }
}
