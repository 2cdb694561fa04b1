import type { Clock } from '../clock.ts';

export interface Login {
  token: string;
  /** Infinity: it does not end by itself. */
  untilMs: number;
}

/** One login for all who ask at the same time, made anew when it ends or is taken back. */
export class LoginKeeper {
  readonly #make: () => Promise<Login>;
  readonly #clock: Clock;
  #pending: Promise<Login> | undefined;

  constructor(make: () => Promise<Login>, clock: Clock) {
    this.#make = make;
    this.#clock = clock;
  }

  async token(): Promise<string> {
    const seen = this.#pending;
    if (seen !== undefined) {
      const known = await seen.catch(() => undefined);
      if (known !== undefined && known.untilMs > this.#clock.nowMs()) return known.token;
    }
    // Whoever finds it over first makes the next one; the others wait for that.
    if (this.#pending === seen) this.#pending = this.#make();
    return (await this.#pending)?.token ?? '';
  }

  /** The other side did not take this token. */
  async refused(token: string): Promise<void> {
    const seen = this.#pending;
    const known = await seen?.catch(() => undefined);
    if (known?.token === token && this.#pending === seen) this.#pending = undefined;
  }
}
