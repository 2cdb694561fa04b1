import { fileURLToPath } from 'node:url';
import { runner } from 'node-pg-migrate';

/** Applies all pending migrations. Two starters at once both pass: the second waits for the advisory lock. */
export async function migrate(databaseUrl: string, log: (line: string) => void = () => undefined): Promise<void> {
  await runner({
    databaseUrl,
    dir: fileURLToPath(new URL('./migrations', import.meta.url)),
    direction: 'up',
    migrationsTable: 'schema_migrations',
    checkOrder: true,
    advisoryLockMode: 'wait',
    log,
  });
}
