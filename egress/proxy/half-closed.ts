import type { Flow } from '../sandbox.ts';

/**
 * A sandbox that sends no more may still take what comes, or is gone: nobody can tell the two apart. The flow is cut when
 * nothing has moved in it for a while. Returns what ends the watch.
 */
export function watchHalfClosed(flow: Flow, quietMs: number): () => void {
  const timer = setInterval(() => {
    if (performance.now() - flow.activeAtMs >= quietMs) flow.cut('sandbox_hung_up');
  }, quietMs);
  timer.unref();
  return () => clearInterval(timer);
}
