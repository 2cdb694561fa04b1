import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { createPool, withTransaction, type Pool } from '../../db/pool.ts';
import { anyApiKey, createApiKey, getApiKey, listApiKeys, revokeApiKey } from '../../db/queries/api-keys.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import type { CliConfig } from '../config.ts';
import { EXIT, print, printJson, say } from '../output.ts';
import { homePaths, readDevJson, writePrivateFile } from '../stack/home.ts';

/** What `keys create` was told. */
export interface KeyOptions {
  name: string;
  user: string;
  team: string;
  models?: string[];
  parallel?: number;
  /** Cents. */
  budget?: number;
  /** Days. */
  expiresIn?: number;
  gatewayOnly: boolean;
  unlessAny: boolean;
  output?: string;
}

const DAY_MS = 24 * 3_600_000;
const ACTOR = 'cli';
const MICROS_PER_CENT = 10_000;

/** Mints an API key: the way in for the first user of an installation. */
export function createKey(config: CliConfig, options: KeyOptions): Promise<number> {
  return withPool(config, async (pool) => {
    if (options.unlessAny && (await anyApiKey(pool))) {
      say('A key exists already: nothing was made.');
      return EXIT.ok;
    }
    const { id, key } = await withTransaction(pool, async (tx) => {
      const made = await createApiKey(tx, {
        name: options.name,
        userId: options.user,
        teamId: options.team,
        allowedModels: options.models ?? null,
        maxParallel: options.parallel ?? null,
        budgetMicros: options.budget === undefined ? null : options.budget * MICROS_PER_CENT,
        expiresAt: options.expiresIn === undefined ? null : new Date(Date.now() + options.expiresIn * DAY_MS),
        ...(options.gatewayOnly ? { scopes: ['gateway'] as const } : {}),
      });
      await insertAudit(tx, { teamId: options.team, actor: ACTOR, action: 'api_key.create', resource: made.id });
      return made;
    });
    if (options.output === undefined) print(key);
    else writePrivateFile(options.output, `${key}\n`);
    say(
      `Made ${id} for user ${options.user} of team ${options.team}${options.output === undefined ? '' : ` in ${options.output}`}.`,
    );
    return EXIT.ok;
  });
}

/** Prints the keys of a team, never the keys themselves. */
export function listKeys(config: CliConfig, options: { team: string; all: boolean; json: boolean }): Promise<number> {
  return withPool(config, async (pool) => {
    const where = { teamId: options.team, includeRevoked: options.all };
    const { data, nextPage } = await listApiKeys(pool, where, { limit: LIMITS.pageSizeMax });
    if (options.json) printJson(data);
    else {
      for (const row of data) {
        const state = row.revokedAt !== null ? 'revoked' : isPast(row.expiresAt) ? 'expired' : 'live';
        const models = row.allowedModels === null ? 'all models' : row.allowedModels.join(',');
        print([row.id, state, row.prefix, row.name, row.userId, row.scopes.join(','), models].join('\t'));
      }
    }
    if (nextPage !== null) say(`Only the newest ${data.length} keys are shown.`);
    return EXIT.ok;
  });
}

/** Ends a key; a second time changes nothing. */
export function revokeKey(config: CliConfig, options: { id: string; team: string }): Promise<number> {
  return withPool(config, async (pool) => {
    const wasLive = await withTransaction(pool, async (tx) => {
      await getApiKey(tx, options.team, options.id, { lock: true });
      const changed = await revokeApiKey(tx, options.team, options.id);
      if (changed) {
        await insertAudit(tx, { teamId: options.team, actor: ACTOR, action: 'api_key.revoke', resource: options.id });
      }
      return changed;
    });
    say(wasLive ? `Revoked ${options.id}.` : `${options.id} was revoked already.`);
    return EXIT.ok;
  });
}

function isPast(time: Date | null): boolean {
  return time !== null && time.getTime() <= Date.now();
}

async function withPool(config: CliConfig, work: (pool: Pool) => Promise<number>): Promise<number> {
  const databaseUrl = config.databaseUrl ?? readDevJson(homePaths(config.home))?.databaseUrl;
  if (databaseUrl === undefined) {
    throw new LonghaulError('setup_required', 'Set DATABASE_URL, or start the local stack with `longhaul dev`');
  }
  const pool = createPool({ databaseUrl, applicationName: 'longhaul-cli', max: 1 });
  try {
    return await work(pool);
  } finally {
    await pool.end();
  }
}
