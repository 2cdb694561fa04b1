import pg from 'pg';
import type { Pool, Queryable } from './pool.ts';

/** Tells all listeners of a channel. */
export async function notify(db: Queryable, channel: string, payload: string): Promise<void> {
  await db.query('SELECT pg_notify($1, $2)', [channel, payload]);
}

/** The address of the database a pool is connected to: listening needs a connection of its own. */
export function databaseUrlOf(pool: Pool): string {
  return pool.options.connectionString ?? '';
}

/** Listens until the connection breaks (throws) or `signal` aborts (returns). */
export async function listenOn(
  databaseUrl: string,
  channels: string[],
  onNotice: (channel: string, payload: string) => void,
  options: { applicationName: string; signal: AbortSignal; onReady: () => void },
): Promise<void> {
  const { signal, onReady } = options;
  const client = new pg.Client({
    connectionString: databaseUrl,
    application_name: options.applicationName,
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
  });
  const ended = new Promise<never>((_resolve, reject) => {
    client.on('error', reject);
    client.once('end', () => reject(new Error('the connection ended')));
  });
  // Handled by the race below; this keeps an early end from being an unhandled rejection.
  ended.catch(() => undefined);
  try {
    await client.connect();
    client.on('notification', (notice) => onNotice(notice.channel, notice.payload ?? ''));
    for (const channel of channels) await client.query(`LISTEN ${client.escapeIdentifier(channel)}`);
    onReady();
    const aborted = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.race([ended, aborted]);
  } finally {
    await client.end().catch(() => undefined);
  }
}
