import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import type { AttemptWatch, HarnessPlace } from '../../db/queries/harness-sessions.ts';
import { watchAttempt } from '../../db/queries/harness-sessions.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { FaultClass, HarnessEvent, TurnOutcome } from './port.ts';

const LOOK_MS = 500;

interface WatchOptions {
  pool: Pool;
  logger: Logger;
  place: HarnessPlace;
  /** How long people may be waited for, with nothing else going on, before the harness is parked. */
  holdMs: number;
  /** A harness that goes on without us is left; another one is parked instead. */
  canDetach: boolean;
}

/**
 * Looks after one attempt, whatever the driver: silence and endless retries cancel it, long waits for people park it, and what
 * the workflow wishes is passed on.
 */
export class Watchdog {
  readonly park = new AbortController();
  readonly detach = new AbortController();
  readonly cancel = new AbortController();
  private readonly options: WatchOptions;
  private readonly timer: NodeJS.Timeout;
  private isLooking = false;
  private aliveMs = Date.now();
  private heldSinceMs: number | undefined;
  private retries = 0;
  private lastRetry: Extract<HarnessEvent, { type: 'retry' }> | undefined;
  private stopped: 'idle' | 'retries' | undefined;

  constructor(options: WatchOptions) {
    this.options = options;
    this.timer = setInterval(() => void this.look(), LOOK_MS);
  }

  /** The harness says something. */
  hear(event: HarnessEvent): void {
    this.aliveMs = Date.now();
    if (event.type !== 'activity') this.heldSinceMs = undefined;
    if (event.type !== 'retry') return;
    this.lastRetry = event;
    this.retries += 1;
    if (this.retries > LIMITS.harnessRetries) this.stop('retries');
  }

  end(): void {
    clearInterval(this.timer);
  }

  /** What the watchdog has to say about an attempt that it stopped. */
  verdict(): TurnOutcome | undefined {
    if (this.stopped === undefined) return undefined;
    const last = this.lastRetry;
    const fault = this.stopped === 'retries' && last !== undefined ? faultOf(last.httpStatus) : 'stalled';
    const message =
      this.stopped === 'idle'
        ? `the harness said nothing for ${Math.round(LIMITS.harnessIdleMs / 1_000)} seconds`
        : `the harness asked the model ${this.retries} times again: ${last?.message ?? ''}`;
    return { kind: 'failed', fault, retryable: true, httpStatus: last?.httpStatus ?? null, message };
  }

  private async look(): Promise<void> {
    if (this.isLooking) return;
    this.isLooking = true;
    try {
      this.judge(await watchAttempt(this.options.pool, this.options.place));
    } catch (error) {
      // The database is away: the next look tells.
      this.options.logger.warn({ sessionId: this.options.place.sessionId, err: error }, 'a harness is not watched');
    } finally {
      this.isLooking = false;
    }
  }

  private judge({ wish, waiting, working }: AttemptWatch): void {
    const now = Date.now();
    if (wish !== null) (wish === 'detach' && this.options.canDetach ? this.detach : this.park).abort();
    if (waiting + working > 0) this.aliveMs = now;
    if (waiting === 0 || working > 0) this.heldSinceMs = undefined;
    else {
      this.heldSinceMs ??= now;
      if (now - this.heldSinceMs >= this.options.holdMs) this.park.abort();
    }
    if (now - this.aliveMs > LIMITS.harnessIdleMs) this.stop('idle');
  }

  private stop(why: 'idle' | 'retries'): void {
    this.stopped ??= why;
    this.cancel.abort();
  }
}

function faultOf(httpStatus: number | null): FaultClass {
  if (httpStatus === 429) return 'rate_limit';
  if (httpStatus === 401 || httpStatus === 403) return 'auth';
  if (httpStatus === 402) return 'budget';
  if (httpStatus !== null && httpStatus >= 400 && httpStatus < 500) return 'bad_request';
  return 'overloaded';
}
