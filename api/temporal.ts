import { Client, Connection } from '@temporalio/client';
import type { TemporalTarget } from '../temporal/config.ts';

/** The one Temporal client of the process. Connects when first used, so the API starts while Temporal is down. */
export interface Temporal {
  client: Client;
  /** Bounds every call made inside `work`. */
  withDeadline<T>(waitMs: number, work: () => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

export function connectTemporal(target: TemporalTarget): Temporal {
  const connection = Connection.lazy({ ...target.connection, connectTimeout: 2_000 });
  const client = new Client({ connection, namespace: target.namespace });
  return {
    client,
    withDeadline: (waitMs, work) => connection.withDeadline(Date.now() + waitMs, work),
    close: () => connection.close(),
  };
}
