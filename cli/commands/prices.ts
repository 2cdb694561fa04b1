import { readFile, stat } from 'node:fs/promises';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { readLitellmPrices } from '../../contracts/litellm-prices.ts';
import { createPool, withTransaction } from '../../db/pool.ts';
import { setPrices } from '../../db/queries/prices.ts';
import type { CliConfig } from '../config.ts';
import { EXIT, say } from '../output.ts';
import { homePaths, readDevJson } from '../stack/home.ts';

const MAX_FILE_BYTES = 32 * 1024 * 1024;
const REASONS = 20;

/** Sets the prices of a LiteLLM price map for one team, or for everybody: that is the operator's to do. */
export async function importPrices(config: CliConfig, file: string, options: { team?: string }): Promise<number> {
  const databaseUrl = config.databaseUrl ?? readDevJson(homePaths(config.home))?.databaseUrl;
  if (databaseUrl === undefined) {
    throw new LonghaulError('setup_required', 'Set DATABASE_URL, or start the local stack with `longhaul dev`');
  }
  const { prices, skipped, ignoredFields } = readLitellmPrices(await readMap(file));
  const scope = { teamId: options.team ?? null, setBy: 'operator', source: 'litellm' as const };
  const pool = createPool({ databaseUrl, applicationName: 'longhaul-cli', max: 1 });
  try {
    await withTransaction(pool, (tx) => setPrices(tx, scope, prices));
  } finally {
    await pool.end();
  }
  say(`Set ${prices.length} prices for ${options.team === undefined ? 'every team' : `team ${options.team}`}.`);
  if (skipped.length > 0) say(`Left out ${skipped.length} entries:`);
  for (const { model, reason } of skipped.slice(0, REASONS)) say(`  ${model}: ${reason}`);
  if (skipped.length > REASONS) say(`  … and ${skipped.length - REASONS} more`);
  if (ignoredFields.length > 0) say(`Calls are not priced by: ${ignoredFields.join(', ')}`);
  return EXIT.ok;
}

async function readMap(file: string): Promise<Record<string, unknown>> {
  const { size } = await stat(file);
  if (size > MAX_FILE_BYTES)
    throw new LonghaulError('invalid_request', `${file} is larger than ${MAX_FILE_BYTES} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new LonghaulError('invalid_json', `${file} is not JSON`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new LonghaulError('invalid_json', `${file} must hold a JSON object of models by name`);
  }
  return value as Record<string, unknown>;
}
