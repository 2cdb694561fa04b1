import type { Pool } from '../../db/pool.ts';
import type { Logger } from '../../telemetry/logger.ts';
import {
  claimAnswer,
  completeAnswer,
  releaseAnswer,
  renewAnswers,
  type AnswerClaim,
  type AnswerKey,
  type CachedAnswer,
} from '../../db/queries/cached-answers.ts';

import type { RedisConfig } from './config.ts';
import { redisStore } from './redis-store.ts';

/** Where answers are kept. Every method may fail: the caches then do without. */
export interface AnswerStore {
  claim(at: AnswerKey, lease: { owner: string; leaseMs: number }): Promise<AnswerClaim>;
  complete(at: AnswerKey, owner: string, answer: CachedAnswer, ttlMs: number): Promise<void>;
  release(key: string, owner: string): Promise<void>;
  renew(keys: string[], owner: string, leaseMs: number): Promise<void>;
  close(): Promise<void>;
}

/** Postgres keeps answers; Redis, where there is one, comes first. */
export function openStore(pool: Pool, redis: RedisConfig | undefined, logger: Logger): AnswerStore {
  const inPostgres = postgresStore(pool);
  return redis === undefined ? inPostgres : redisStore(redis, inPostgres, logger);
}

/** Answers in Postgres: survive restarts, shared by all gateways. */
function postgresStore(pool: Pool): AnswerStore {
  return {
    claim: (at, lease) => claimAnswer(pool, at, lease),
    complete: (at, owner, answer, ttlMs) => completeAnswer(pool, at, owner, answer, ttlMs),
    release: (key, owner) => releaseAnswer(pool, key, owner),
    renew: (keys, owner, leaseMs) => renewAnswers(pool, keys, owner, leaseMs),
    close: () => Promise.resolve(),
  };
}
