import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../contracts/error-codes.ts';

interface WaitOptions {
  what: string;
  timeoutMs: number;
  everyMs?: number;
  /** Throw from here to give up early, for instance because the process died. */
  check?: () => void;
}

/** Polls until `probe` gives true; a probe that throws counts as "not yet". */
export async function waitUntil(probe: () => Promise<boolean>, options: WaitOptions): Promise<void> {
  const deadline = Date.now() + options.timeoutMs;
  let last: unknown;
  for (;;) {
    options.check?.();
    try {
      if (await probe()) return;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= deadline) {
      const reason = last instanceof Error ? `: ${last.message}` : '';
      throw new LonghaulError('internal', `${options.what} was not ready after ${options.timeoutMs} ms${reason}`);
    }
    await delay(options.everyMs ?? 25);
  }
}
