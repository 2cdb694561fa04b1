import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';

const running = new Map<string, number>();

/** Counts requests of a session that are open in this process. Throws `too_many_parallel_calls`. */
export async function withinParallel<T>(sessionId: string, work: () => Promise<T>): Promise<T> {
  const count = running.get(sessionId) ?? 0;
  if (count >= LIMITS.mcpParallel) {
    throw new LonghaulError('too_many_parallel_calls', `at most ${LIMITS.mcpParallel} at a time for one session`);
  }
  running.set(sessionId, count + 1);
  try {
    return await work();
  } finally {
    const left = (running.get(sessionId) ?? 1) - 1;
    if (left > 0) running.set(sessionId, left);
    else running.delete(sessionId);
  }
}
