import { LonghaulError } from '../../contracts/error-codes.ts';
import { createPool, type Pool } from '../../db/pool.ts';
import { countByKey } from '../../db/queries/vault-keys.ts';
import { readVaultKeys } from '../../vault/config.ts';
import { rotateMasterKey } from '../../vault/rotate.ts';
import { inheritedEnvironment, type CliConfig } from '../config.ts';
import { EXIT, print, printJson, say } from '../output.ts';
import { homePaths, readDevJson } from '../stack/home.ts';

/** Brings every sealed value under the first key of LONGHAUL_VAULT_KEY; run again, it goes on where it was. */
export async function rotateVaultKey(config: CliConfig, options: { json: boolean }): Promise<number> {
  const ring = readVaultKeys(vaultEnvironment(config));
  return withDatabase(config, async (pool) => {
    const result = await rotateMasterKey(pool, ring, (done) => say(`${done} values are under key ${ring.current.id}`));
    if (options.json) printJson(result);
    else print(`Key ${result.keyId}: ${result.rewrapped} values moved to it.`);
    for (const one of result.failed) {
      say(`not moved: version ${one.version} of ${one.credentialId}, under key ${one.keyId}: it does not open`);
    }
    if (result.failed.length > 0) return EXIT.failed;
    if (result.left.length > 0) {
      const left = result.left.map(({ keyId, count }) => `${count} under ${keyId}`).join(', ');
      say(
        `Some were written meanwhile with another key (${left}): give all processes the new key first, then run this again.`,
      );
      return EXIT.failed;
    }
    say('No value needs another key now: old ones can be taken out of LONGHAUL_VAULT_KEY.');
    return EXIT.ok;
  });
}

/** Which master keys guard how many values. */
export async function showVaultKeys(config: CliConfig, options: { json: boolean }): Promise<number> {
  const keys = await withDatabase(config, countByKey);
  if (options.json) printJson(keys);
  else for (const { keyId, count } of keys) print(`${keyId}  ${count}`);
  return EXIT.ok;
}

/** In a home of `longhaul dev` the key lies in a file. */
function vaultEnvironment(config: CliConfig): NodeJS.ProcessEnv {
  const env = inheritedEnvironment();
  const isSet = [env['LONGHAUL_VAULT_KEY'], env['LONGHAUL_VAULT_KEY_FILE']].some((value) => (value ?? '') !== '');
  return isSet ? env : { ...env, LONGHAUL_VAULT_KEY_FILE: homePaths(config.home).vaultKey };
}

async function withDatabase<T>(config: CliConfig, work: (pool: Pool) => Promise<T>): Promise<T> {
  const databaseUrl = config.databaseUrl ?? readDevJson(homePaths(config.home))?.databaseUrl;
  if (databaseUrl === undefined) {
    throw new LonghaulError('setup_required', 'Set DATABASE_URL, or start the local stack with `longhaul dev`');
  }
  const pool = createPool({ databaseUrl, applicationName: 'longhaul-cli', max: 2 });
  try {
    return await work(pool);
  } finally {
    await pool.end();
  }
}
