import type { Usage } from '../../contracts/definitions.ts';
import type { LonghaulError } from '../../contracts/error-codes.ts';
import type { CallBudget, PricedModel } from '../budget/hold.ts';

interface GateOptions {
  budget: CallBudget;
  /** What the answer has used, all that came included. */
  used: () => { usage: Usage; model: PricedModel | undefined };
  /** Gives a piece to who takes the answer, which shows whole events only; false asks for a pause. */
  pass: (chunk: Buffer, isLast: boolean) => boolean;
  resume: () => void;
  stop: (reason: LonghaulError) => void;
}

/**
 * Lets the pieces of a stream pass while their money is held. Behind a piece that goes beyond, which is given because it
 * has been billed, the next ones wait for more money; when there is none, the stream stops.
 */
export class BudgetGate {
  readonly #options: GateOptions;
  #waiting: Buffer[] = [];
  #isAsking = false;
  #isDone = false;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** True while pieces wait for money. */
  get isHolding(): boolean {
    return this.#isAsking;
  }

  /** A piece that came while others wait. */
  hold(chunk: Buffer): void {
    this.#waiting.push(chunk);
  }

  /** After each piece: false when the next ones must wait. */
  check(isLast: boolean): boolean {
    const { budget, used } = this.#options;
    const { usage, model } = used();
    // An answer that is whole has been billed: there is nothing left to stop.
    if (isLast || budget.covers(usage, model)) return true;
    this.#isAsking = true;
    void this.#askForMore();
    return false;
  }

  /** The answer has ended by itself: what waits is part of it. */
  end(): void {
    this.#isDone = true;
    this.#passWaiting(true);
  }

  async #askForMore(): Promise<void> {
    const { budget, used, resume, stop } = this.#options;
    for (;;) {
      const reason = await budget.extend();
      if (this.#isDone) return;
      if (reason !== undefined) {
        this.#isDone = true;
        this.#passWaiting(false);
        stop(reason);
        return;
      }
      const { usage, model } = used();
      if (!budget.covers(usage, model)) continue;
      this.#isAsking = false;
      if (this.#passWaiting(false)) resume();
      return;
    }
  }

  #passWaiting(isLast: boolean): boolean {
    const chunks = this.#waiting.splice(0);
    return chunks.length === 0 || this.#options.pass(Buffer.concat(chunks), isLast);
  }
}
