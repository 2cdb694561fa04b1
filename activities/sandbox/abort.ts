/** Gives up waiting when asked to: calls of vendors' libraries take no signal, but all of them have deadlines. */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  // Given up or not, its end is nobody's surprise.
  work.catch(() => undefined);
  signal.throwIfAborted();
  let giveUp: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    giveUp = () => reject(signal.reason as Error);
    signal.addEventListener('abort', giveUp, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    if (giveUp !== undefined) signal.removeEventListener('abort', giveUp);
  }
}

/** As long as a provider may take to answer, beyond what it was asked to wait. */
const ANSWER_MS = 60_000;

/** One that does not answer is away: an attempt that waits for it for ever is one that nobody counts. */
export function answerWithin(signal: AbortSignal, moreMs = 0): AbortSignal {
  return anyAbort([signal, AbortSignal.timeout(ANSWER_MS + moreMs)]);
}
import { anyAbort } from '../../contracts/abort.ts';
