import { LonghaulError } from '../../contracts/error-codes.ts';
import { migrate } from '../../db/migrate.ts';
import type { CliConfig } from '../config.ts';
import { EXIT, say } from '../output.ts';

/** Applies pending migrations; several may run at once. */
export async function migrateDatabase(config: CliConfig): Promise<number> {
  if (config.databaseUrl === undefined) throw new LonghaulError('setup_required', 'DATABASE_URL is not set');
  await migrate(config.databaseUrl);
  say('The database has the schema of this version.');
  return EXIT.ok;
}
