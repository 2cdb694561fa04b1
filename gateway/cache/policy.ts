import { DEFAULT_PROMPT_CACHING, type PromptCaching, type ResponseCacheTtl } from '../../contracts/caching.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Queryable } from '../../db/pool.ts';
import { findCachingSource, type CachingSource } from '../../db/queries/cache-policies.ts';
import type { Caller } from '../auth.ts';

/** What the caches may do for the calls of one caller. */
export interface CachePolicy {
  prompt: PromptCaching;
  /** The caller is the built-in loop: it has placed its breakpoints and says what its prefix is. */
  isNative: boolean;
  /** Whose prefix is watched; undefined for callers without an agent and sessions that replaced parts of theirs. */
  prefixOf: { id: string; version: number } | undefined;
  /** Undefined: answers are not given again, and a caller may not ask for it. */
  response: { ttlMs: number; toolCalls: boolean; isDefault: boolean } | undefined;
}

/** A change of a key is followed after this time and one more call; agent versions do not change. */
const FRESH_MS = 2_000;
/** What nobody asked for so long may be looked up anew while the caller waits. */
const KEEP_MS = 60_000;
const ENTRIES = 10_000;
const TTL_MS: Record<Exclude<ResponseCacheTtl, 'default'>, number> = {
  '5m': 5 * 60_000,
  '1h': 3_600_000,
  '24h': 24 * 3_600_000,
};
const NOTHING: CachingSource = { key: null, agent: null, isOfVersion: false };

/** Looks up policies, rarely: they are kept in memory by key. */
export class CachePolicies {
  readonly #db: Queryable;
  readonly #defaultTtlMs: number;
  readonly #kept = new Map<string, { policy: CachePolicy; sinceMs: number }>();

  constructor(db: Queryable, defaultTtlMs: number) {
    this.#db = db;
    this.#defaultTtlMs = defaultTtlMs;
  }

  /** The policy of a caller; undefined when it is not in memory. An old one is good for this call, and looked up anew. */
  known(caller: Caller): CachePolicy | undefined {
    const kept = this.#kept.get(caller.attribution.keyId);
    if (kept === undefined) return undefined;
    const ageMs = Date.now() - kept.sinceMs;
    if (ageMs > KEEP_MS) return undefined;
    if (ageMs > FRESH_MS) {
      // One of many callers asks.
      kept.sinceMs = Date.now();
      void this.lookUp(caller);
    }
    return kept.policy;
  }

  /** The same, looked up. Without the database nothing is cached: no call may fail for that. */
  async lookUp(caller: Caller): Promise<CachePolicy> {
    const { attribution } = caller;
    let source: CachingSource;
    try {
      source = await findCachingSource(this.#db, attribution);
    } catch {
      return this.#policyOf(caller, NOTHING);
    }
    const policy = this.#policyOf(caller, source);
    if (this.#kept.size >= ENTRIES) this.#kept.clear();
    this.#kept.set(attribution.keyId, { policy, sinceMs: Date.now() });
    return policy;
  }

  #policyOf({ attribution }: Caller, { key, agent, isOfVersion }: CachingSource): CachePolicy {
    const isNative = attribution.harness === 'native';
    const { agentId, agentVersion } = attribution;
    const response = agent?.response_cache ?? key?.response_cache;
    const own = agent?.prompt_caching ?? key?.prompt_caching;
    return {
      prompt: own ?? (isNative ? DEFAULT_PROMPT_CACHING : { type: 'off' }),
      isNative,
      prefixOf:
        isOfVersion && agentId !== null && agentVersion !== null ? { id: agentId, version: agentVersion } : undefined,
      response:
        response === undefined
          ? undefined
          : {
              ttlMs: response.ttl === 'default' ? this.#defaultTtlMs : TTL_MS[response.ttl],
              toolCalls: response.tool_calls,
              isDefault: agent?.response_cache !== undefined,
            },
    };
  }
}

/** Header by which a caller switches the response cache on, where its key permits that, or off. */
const CACHE_HEADER = 'x-longhaul-cache';

/** How answers to this request are cached; undefined: not at all. */
export function wantedResponseCache(
  policy: CachePolicy,
  headers: Record<string, string | string[] | undefined>,
): NonNullable<CachePolicy['response']> | undefined {
  const wish = headers[CACHE_HEADER];
  switch (wish) {
    case undefined:
      return policy.response?.isDefault === true ? policy.response : undefined;
    case 'off':
      return undefined;
    case 'on':
      if (policy.response !== undefined) return policy.response;
      throw new LonghaulError('forbidden', 'neither this key nor its agent has a response cache', {
        field: CACHE_HEADER,
      });
    default:
      throw new LonghaulError('invalid_request', 'must be on or off', { field: CACHE_HEADER });
  }
}
