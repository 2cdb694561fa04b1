import type { RedisClientType } from '@redis/client';
import type { AnswerClaim, CachedAnswer } from '../../db/queries/cached-answers.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { RedisConfig } from './config.ts';
import type { AnswerStore } from './store.ts';

/** After a failure Redis is left alone for so long: not every call shall wait for it. */
const REST_MS = 5_000;
const RECONNECT_MAX_MS = 5_000;

const answerAt = (key: string): string => `longhaul:answer:${key}`;
const leaseAt = (key: string): string => `longhaul:answer-lease:${key}`;

/** A lease is touched by its owner only. */
const RELEASE = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end`;
const RENEW = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return 0 end`;

/** Answers in Redis, which forgets them by itself; while it is away, in `fallback`. */
export function redisStore(config: RedisConfig, fallback: AnswerStore, logger: Logger): AnswerStore {
  const redis = new Redis(config, logger);
  const either = async <T>(work: (client: RedisClientType) => Promise<T>, otherwise: () => Promise<T>): Promise<T> => {
    const result = await redis.run(work);
    return result === undefined ? otherwise() : result.value;
  };
  return {
    claim: (at, lease) =>
      either(
        (client) => claimIn(client, at.key, lease),
        () => fallback.claim(at, lease),
      ),
    complete: (at, owner, answer, ttlMs) =>
      either(
        async (client) => {
          await client.set(answerAt(at.key), pack(answer), { expiration: { type: 'PX', value: ttlMs } });
          await client.eval(RELEASE, { keys: [leaseAt(at.key)], arguments: [owner] });
        },
        () => fallback.complete(at, owner, answer, ttlMs),
      ),
    // In both: Redis may have gone away, or come back, since the claim.
    release: async (key, owner) => {
      await redis.run((client) => client.eval(RELEASE, { keys: [leaseAt(key)], arguments: [owner] }));
      await fallback.release(key, owner);
    },
    renew: async (keys, owner, leaseMs) => {
      await redis.run((client) =>
        Promise.all(
          keys.map((key) => client.eval(RENEW, { keys: [leaseAt(key)], arguments: [owner, String(leaseMs)] })),
        ),
      );
      await fallback.renew(keys, owner, leaseMs);
    },
    close: async () => {
      redis.close();
      await fallback.close();
    },
  };
}

async function claimIn(
  client: RedisClientType,
  key: string,
  lease: { owner: string; leaseMs: number },
): Promise<AnswerClaim> {
  const found = await client.get(answerAt(key));
  if (found !== null) return { state: 'hit', answer: unpack(found) };
  const isOwned = await client.set(leaseAt(key), lease.owner, {
    condition: 'NX',
    expiration: { type: 'PX', value: lease.leaseMs },
  });
  if (isOwned === null) return { state: 'busy' };
  // Its maker may have ended between the two.
  const late = await client.get(answerAt(key));
  if (late === null) return { state: 'owned' };
  await client.eval(RELEASE, { keys: [leaseAt(key)], arguments: [lease.owner] });
  return { state: 'hit', answer: unpack(late) };
}

/** A connection made at first use. Work that fails, or takes too long, has no result. */
class Redis {
  readonly #config: RedisConfig;
  readonly #logger: Logger;
  #client: Promise<RedisClientType> | undefined;
  #open: RedisClientType | undefined;
  #restsUntilMs = 0;

  constructor(config: RedisConfig, logger: Logger) {
    this.#config = config;
    this.#logger = logger;
  }

  async run<T>(work: (client: RedisClientType) => Promise<T>): Promise<{ value: T } | undefined> {
    if (Date.now() < this.#restsUntilMs) return undefined;
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error('Redis took too long')), this.#config.patienceMs);
    });
    try {
      const answered = async (): Promise<T> => work(await this.#connected());
      return { value: await Promise.race([answered(), patience]) };
    } catch (error) {
      this.#restsUntilMs = Date.now() + REST_MS;
      this.#logger.warn({ reason: (error as Error).message }, 'Redis is away: answers are in Postgres');
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    if (this.#open?.isOpen === true) this.#open.destroy();
  }

  #connected(): Promise<RedisClientType> {
    this.#client ??= this.#connect().catch((error: unknown) => {
      this.#client = undefined;
      throw error;
    });
    return this.#client;
  }

  async #connect(): Promise<RedisClientType> {
    const { createClient } = await import('@redis/client');
    const client: RedisClientType = createClient({
      url: this.#config.url,
      // What cannot be sent now shall fail now.
      disableOfflineQueue: true,
      socket: {
        connectTimeout: this.#config.patienceMs,
        reconnectStrategy: (retries) => Math.min(100 * 2 ** retries, RECONNECT_MAX_MS),
      },
    });
    this.#open = client;
    // Each failed command tells; without a listener the process would end.
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }
}

function pack({ body, ...answer }: CachedAnswer): string {
  return JSON.stringify({ ...answer, body: body.toString('base64') });
}

function unpack(text: string): CachedAnswer {
  const { body, ...answer } = JSON.parse(text) as Omit<CachedAnswer, 'body'> & { body: string };
  return { ...answer, body: Buffer.from(body, 'base64') };
}
