import { LonghaulError } from '../../contracts/error-codes.ts';
import { createPool } from '../../db/pool.ts';
import { anyApiKey, createApiKey } from '../../db/queries/api-keys.ts';
import type { CliConfig } from '../config.ts';
import { EXIT, print, say } from '../output.ts';
import { homePaths, readDevJson, writePrivateFile } from '../stack/home.ts';

interface KeyOptions {
  name: string;
  user: string;
  team: string;
  unlessAny: boolean;
  output?: string;
}

/** Mints an API key: the way in for the first user of an installation. */
export async function createKey(config: CliConfig, options: KeyOptions): Promise<number> {
  const databaseUrl = config.databaseUrl ?? readDevJson(homePaths(config.home))?.databaseUrl;
  if (databaseUrl === undefined) {
    throw new LonghaulError('setup_required', 'Set DATABASE_URL, or start the local stack with `longhaul dev`');
  }
  const pool = createPool({ databaseUrl, applicationName: 'longhaul-cli', max: 1 });
  try {
    if (options.unlessAny && (await anyApiKey(pool))) {
      say('A key exists already: nothing was made.');
      return EXIT.ok;
    }
    const { id, key } = await createApiKey(pool, { name: options.name, userId: options.user, teamId: options.team });
    if (options.output === undefined) print(key);
    else writePrivateFile(options.output, `${key}\n`);
    say(
      `Made ${id} for user ${options.user} of team ${options.team}${options.output === undefined ? '' : ` in ${options.output}`}.`,
    );
    return EXIT.ok;
  } finally {
    await pool.end();
  }
}
