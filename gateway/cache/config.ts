import { LonghaulError } from '../../contracts/error-codes.ts';

export interface RedisConfig {
  url: string;
  /** What takes longer is done without Redis. */
  patienceMs: number;
}

/** Settings of the caches. */
export interface CacheConfig {
  /** How long an answer is given again where an agent does not say. */
  defaultTtlMs: number;
  /** Part of every key: another word makes all answers of before unreachable. */
  promptVersion: string;
  /** Undefined: answers are kept in Postgres alone. */
  redis: RedisConfig | undefined;
  alert: {
    /** The fraction by which the hit rate must fall below its average to raise an alert. */
    drop: number;
    /** Calls over which the average is taken; fewer raise none. */
    calls: number;
  };
}

const MINUTE_MS = 60_000;
/** Longer than any answer of a healthy Redis, shorter than a model call. */
const REDIS_PATIENCE_MS = 500;
/** An edited prompt should show at once where prompts are edited, and cost little where they are not. */
const TTL_MS_BY_ENVIRONMENT: Readonly<Record<string, number>> = {
  development: 5 * MINUTE_MS,
  staging: 60 * MINUTE_MS,
  production: 24 * 60 * MINUTE_MS,
};

/** The caches' part of the gateway's environment. */
export function readCacheConfig(env: Record<string, string | undefined>): CacheConfig {
  const environment = env['LONGHAUL_ENVIRONMENT'] ?? 'development';
  const defaultTtlMs = TTL_MS_BY_ENVIRONMENT[environment];
  if (defaultTtlMs === undefined) {
    const known = Object.keys(TTL_MS_BY_ENVIRONMENT).join(', ');
    throw new LonghaulError('setup_required', `LONGHAUL_ENVIRONMENT must be one of ${known}, not "${environment}"`);
  }
  const url = env['REDIS_URL'];
  return {
    defaultTtlMs,
    promptVersion: env['LONGHAUL_PROMPT_VERSION'] ?? '1',
    redis: url === undefined || url === '' ? undefined : { url, patienceMs: REDIS_PATIENCE_MS },
    alert: {
      drop: between(env, 'LONGHAUL_CACHE_ALERT_DROP_PERCENT', { standard: 30, min: 1, max: 100 }) / 100,
      calls: between(env, 'LONGHAUL_CACHE_ALERT_CALLS', { standard: 50, min: 20, max: 10_000 }),
    },
  };
}

function between(
  env: Record<string, string | undefined>,
  name: string,
  range: { standard: number; min: number; max: number },
): number {
  const text = env[name];
  if (text === undefined || text === '') return range.standard;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < range.min || value > range.max) {
    throw new LonghaulError('setup_required', `${name} must be a whole number from ${range.min} to ${range.max}`);
  }
  return value;
}
