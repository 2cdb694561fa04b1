import { setMaxListeners } from 'node:events';
import { Client, Connection, defaultGrpcRetryOptions, makeGrpcRetryInterceptor } from '@temporalio/client';
import type { TemporalTarget } from '../temporal/config.ts';

/** Closing waits for a retry that is due. */
const RETRY_DELAY_MAX_MS = 1_000;

/** The one Temporal client of the process. Connects when first used, so the API starts while Temporal is down. */
export interface Temporal {
  client: Client;
  /** Bounds every call made inside `work`. */
  withDeadline<T>(waitMs: number, work: () => Promise<T>): Promise<T>;
  /** Cancels the calls that run, waits for those who made them, then closes. */
  close(): Promise<void>;
}

export function connectTemporal(target: TemporalTarget): Temporal {
  let closing = false;
  const retry = defaultGrpcRetryOptions();
  const connection = Connection.lazy({
    ...target.connection,
    connectTimeout: 2_000,
    interceptors: [
      makeGrpcRetryInterceptor({
        ...retry,
        delayFunction: (attempt, status) => Math.min(RETRY_DELAY_MAX_MS, retry.delayFunction(attempt, status)),
        retryableDecider: (attempt, status) => !closing && retry.retryableDecider(attempt, status),
      }),
    ],
  });
  const client = new Client({ connection, namespace: target.namespace });
  const running = new Map<AbortController, Promise<unknown>>();
  return {
    client,
    async withDeadline(waitMs, work) {
      const call = new AbortController();
      // Each call adds a listener and none takes it off again; they go with the controller.
      setMaxListeners(0, call.signal);
      const run = connection.withAbortSignal(call.signal, () => connection.withDeadline(Date.now() + waitMs, work));
      running.set(call, run);
      try {
        return await run;
      } finally {
        running.delete(call);
      }
    },
    async close() {
      closing = true;
      for (const call of running.keys()) call.abort();
      // A retry that is due on a closed connection throws from its timer, where nobody can catch it.
      await Promise.allSettled(running.values());
      await connection.close();
    },
  };
}
