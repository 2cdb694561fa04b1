import type { Usage } from '../../contracts/definitions.ts';
import type { LonghaulError } from '../../contracts/error-codes.ts';
import type { CallBudget, PricedModel } from '../budget/hold.ts';

interface GateOptions {
  budget: CallBudget;
  /** What the answer has used, all that came included. */
  used: () => { usage: Usage; model: PricedModel | undefined };
  /** Gives a piece to who takes the answer; false asks for a pause. */
  pass: (chunk: Buffer, isLast: boolean) => boolean;
  resume: () => void;
  stop: (reason: LonghaulError) => void;
}

const BOUNDARIES = ['\n\n', '\r\n\r\n'] as const;
const TAIL_BYTES = 4;

/**
 * Lets the pieces of a stream pass while their money is held. What would go beyond waits for more money; when there is
 * none, the stream stops between two events, so that an error event can follow.
 */
export class BudgetGate {
  readonly #options: GateOptions;
  #waiting: Buffer[] = [];
  #reason: LonghaulError | undefined;
  #tail: Buffer = Buffer.alloc(0);
  #isDone = false;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** True while pieces wait for money. */
  get isHolding(): boolean {
    return this.#waiting.length > 0;
  }

  push(chunk: Buffer, isLast: boolean): boolean {
    if (this.#reason !== undefined) return this.#passToBoundary(chunk, this.#reason);
    if (this.isHolding) {
      this.#waiting.push(chunk);
      return false;
    }
    const { usage, model } = this.#options.used();
    // An answer that is whole has been billed: there is nothing left to stop.
    if (isLast || this.#options.budget.covers(usage, model)) return this.#pass(chunk, isLast);
    this.#waiting.push(chunk);
    void this.#askForMore();
    return false;
  }

  /** The answer has ended by itself: what waits is part of it. */
  end(): void {
    this.#isDone = true;
    if (this.isHolding) this.#options.pass(this.#takeWaiting(), true);
  }

  async #askForMore(): Promise<void> {
    for (;;) {
      const reason = await this.#options.budget.extend();
      if (this.#isDone) return;
      if (reason !== undefined) {
        this.#stop(reason);
        return;
      }
      const { usage, model } = this.#options.used();
      if (!this.#options.budget.covers(usage, model)) continue;
      if (this.#pass(this.#takeWaiting(), false)) this.#options.resume();
      return;
    }
  }

  #stop(reason: LonghaulError): void {
    const chunk = this.#takeWaiting();
    const end = lastBoundary(chunk);
    if (end === 0 && !this.#isAtBoundary()) {
      // Half an event is out: the rest of it has to follow.
      this.#reason = reason;
      if (this.#pass(chunk, false)) this.#options.resume();
      return;
    }
    this.#isDone = true;
    if (end > 0) this.#options.pass(chunk.subarray(0, end), false);
    this.#options.stop(reason);
  }

  #passToBoundary(chunk: Buffer, reason: LonghaulError): boolean {
    const joined = Buffer.concat([this.#tail, chunk]);
    const end = firstBoundary(joined) - this.#tail.length;
    if (end <= 0) return this.#pass(chunk, false);
    this.#isDone = true;
    this.#options.pass(chunk.subarray(0, end), false);
    this.#options.stop(reason);
    return true;
  }

  #pass(chunk: Buffer, isLast: boolean): boolean {
    const joined = chunk.length >= TAIL_BYTES ? chunk : Buffer.concat([this.#tail, chunk]);
    this.#tail = joined.subarray(-TAIL_BYTES);
    return this.#options.pass(chunk, isLast);
  }

  #takeWaiting(): Buffer {
    return Buffer.concat(this.#waiting.splice(0));
  }

  #isAtBoundary(): boolean {
    return this.#tail.length === 0 || lastBoundary(this.#tail) === this.#tail.length;
  }
}

/** Where the last whole event ends; 0: there is none. */
function lastBoundary(bytes: Buffer): number {
  return Math.max(...BOUNDARIES.map((mark) => bytes.lastIndexOf(mark) + (bytes.includes(mark) ? mark.length : 1)));
}

/** Where the first event ends; 0: it does not. */
function firstBoundary(bytes: Buffer): number {
  const ends = BOUNDARIES.map((mark) => bytes.indexOf(mark) + (bytes.includes(mark) ? mark.length : 1));
  const found = ends.filter((end) => end > 0);
  return found.length === 0 ? 0 : Math.min(...found);
}
