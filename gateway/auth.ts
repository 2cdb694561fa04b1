import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Attribution } from '../contracts/attribution.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { isOutage, type Queryable } from '../db/pool.ts';
import { findApiKey, type Principal } from '../db/queries/api-keys.ts';
import { VIRTUAL_KEY_PREFIX, findVirtualKey, type VirtualKeyRow } from '../db/queries/virtual-keys.ts';

/** Who calls, as the key says. */
export interface Caller {
  attribution: Attribution;
  /** Present for a virtual key, absent for an API key. */
  virtualKey: VirtualKeyRow | undefined;
}

/** A revoked key works at most this much longer in a process that has just seen it. */
const CACHE_MS = 2_000;
const CACHE_ENTRIES = 10_000;

/** Resolves keys to callers and counts the calls that run under each virtual key. */
export class Authenticator {
  readonly #db: Queryable;
  readonly #cache = new Map<string, { caller: Caller; untilMs: number }>();
  readonly #running = new Map<string, number>();

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** The caller of a request, or `missing_api_key` / `invalid_api_key`. */
  async authenticate(req: IncomingMessage): Promise<Caller> {
    const key = keyOf(req);
    if (key === undefined) {
      throw new LonghaulError('missing_api_key', 'send a key as Authorization: Bearer or x-api-key');
    }
    const digest = createHash('sha256').update(key).digest('base64');
    const nowMs = Date.now();
    const cached = this.#cache.get(digest);
    if (cached !== undefined && cached.untilMs > nowMs) return cached.caller;
    const caller = await this.#lookUp(key);
    if (this.#cache.size >= CACHE_ENTRIES) this.#cache.clear();
    const expiresMs = caller.virtualKey?.expiresAt.getTime() ?? Number.POSITIVE_INFINITY;
    this.#cache.set(digest, { caller, untilMs: Math.min(nowMs + CACHE_MS, expiresMs) });
    return caller;
  }

  async #lookUp(key: string): Promise<Caller> {
    try {
      if (key.startsWith(VIRTUAL_KEY_PREFIX)) {
        const virtualKey = await findVirtualKey(this.#db, key);
        if (virtualKey !== undefined) return { attribution: virtualKey.attribution, virtualKey };
      } else {
        const owner = await findApiKey(this.#db, key);
        if (owner !== undefined) return { attribution: personal(owner), virtualKey: undefined };
      }
    } catch (error) {
      if (isOutage(error))
        throw new LonghaulError('database_unavailable', 'the key cannot be checked', { cause: error });
      throw error;
    }
    throw new LonghaulError('invalid_api_key', 'the key is unknown, revoked or expired');
  }

  /** Takes one of the key's parallel calls; the returned function gives it back. */
  takeSlot(caller: Caller): () => void {
    const key = caller.virtualKey;
    if (key === undefined) return () => undefined;
    const running = this.#running.get(key.id) ?? 0;
    if (running >= key.maxParallel) {
      throw new LonghaulError('too_many_parallel_calls', `this key may run ${key.maxParallel} calls at once`, {
        retryAfterMs: 1_000,
      });
    }
    this.#running.set(key.id, running + 1);
    return () => {
      const left = (this.#running.get(key.id) ?? 1) - 1;
      if (left <= 0) this.#running.delete(key.id);
      else this.#running.set(key.id, left);
    };
  }
}

/** True when the key may call the model; an allowed entry may end with `*`. */
export function mayCall(caller: Caller, model: string): boolean {
  const allowed = caller.virtualKey?.allowedModels;
  if (allowed === undefined || allowed === null) return true;
  return allowed.some((entry) => (entry.endsWith('*') ? model.startsWith(entry.slice(0, -1)) : entry === model));
}

function keyOf(req: IncomingMessage): string | undefined {
  const bearer = /^Bearer\s+(\S+)$/i.exec(req.headers.authorization ?? '')?.[1];
  if (bearer !== undefined) return bearer;
  const key = req.headers['x-api-key'];
  return typeof key === 'string' && key !== '' ? key : undefined;
}

/** A person's or CI's own call: it belongs to no session. */
function personal(owner: Principal): Attribution {
  return {
    teamId: owner.teamId,
    userId: owner.userId,
    keyId: owner.id,
    sessionId: null,
    rootSessionId: null,
    threadId: null,
    agentId: null,
    agentVersion: null,
    deploymentId: null,
    harness: null,
    runtime: null,
    repo: null,
    labels: [],
    trigger: null,
  };
}
