/**
 * What `AbortSignal.any` and `AbortSignal.timeout` promise together, kept: in Node 20 such a signal is garbage while somebody
 * still waits for it, and then never fires.
 */
export function anyAbort(signals: readonly AbortSignal[]): AbortSignal {
  const controller = new AbortController();
  const early = signals.find(({ aborted }) => aborted);
  if (early !== undefined) {
    controller.abort(early.reason);
    return controller.signal;
  }
  const releases = signals.map((signal) => whenAborted(signal, () => controller.abort(signal.reason)));
  const release = (): void => {
    for (const each of releases) each();
  };
  controller.signal.addEventListener('abort', release, { once: true });
  return controller.signal;
}

const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** One listener for all who wait for a signal: Node warns of more than ten. Gives what takes `fire` away again. */
function whenAborted(signal: AbortSignal, fire: () => void): () => void {
  const known = waiting.get(signal);
  const all = known ?? new Set<() => void>();
  all.add(fire);
  if (known === undefined) {
    waiting.set(signal, all);
    const fireAll = (): void => {
      for (const each of all) each();
    };
    signal.addEventListener('abort', fireAll, { once: true });
  }
  return () => all.delete(fire);
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
