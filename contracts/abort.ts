/**
 * What `AbortSignal.any` and `AbortSignal.timeout` promise together, kept: in Node 20 such a signal is garbage while somebody
 * still waits for it, and then never fires.
 */
export function anyAbort(signals: readonly AbortSignal[]): AbortSignal {
  const controller = new AbortController();
  const sources = signals.map((signal) => ({ signal, fire: () => controller.abort(signal.reason) }));
  const early = signals.find(({ aborted }) => aborted);
  if (early !== undefined) controller.abort(early.reason);
  else for (const { signal, fire } of sources) signal.addEventListener('abort', fire, { once: true });
  const release = (): void => {
    for (const { signal, fire } of sources) signal.removeEventListener('abort', fire);
  };
  controller.signal.addEventListener('abort', release, { once: true });
  return controller.signal;
}

/** The work of `signal`, for at most `limitMs`. The timer ends with the work, so that nothing piles up on a long signal. */
export async function within<T>(
  signal: AbortSignal,
  limitMs: number,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const controller = new AbortController();
  const end = (): void => controller.abort(signal.reason);
  const timer = setTimeout(
    () => controller.abort(new DOMException(`no answer within ${limitMs} ms`, 'TimeoutError')),
    limitMs,
  );
  signal.addEventListener('abort', end, { once: true });
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
  }
}
