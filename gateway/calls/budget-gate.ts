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
 * Lets the pieces of a stream pass while their money is held. A piece that goes beyond waits for more money; when there
 * is none, it is given, since it has been billed, and the stream stops.
 */
export class BudgetGate {
  readonly #options: GateOptions;
  #waiting: Buffer[] = [];
  #isDone = false;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** True while pieces wait for money. */
  get isHolding(): boolean {
    return this.#waiting.length > 0;
  }

  push(chunk: Buffer, isLast: boolean): boolean {
    if (this.isHolding) {
      this.#waiting.push(chunk);
      return false;
    }
    const { budget, used, pass } = this.#options;
    const { usage, model } = used();
    // An answer that is whole has been billed: there is nothing left to stop.
    if (isLast || budget.covers(usage, model)) return pass(chunk, isLast);
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
    const { budget, used, pass, resume, stop } = this.#options;
    for (;;) {
      const reason = await budget.extend();
      if (this.#isDone) return;
      if (reason !== undefined) {
        this.#isDone = true;
        pass(this.#takeWaiting(), false);
        stop(reason);
        return;
      }
      const { usage, model } = used();
      if (!budget.covers(usage, model)) continue;
      if (pass(this.#takeWaiting(), false)) resume();
      return;
    }
  }

  #takeWaiting(): Buffer {
    return Buffer.concat(this.#waiting.splice(0));
  }
}
