import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Attribution } from '../contracts/attribution.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { isOutage, type Queryable } from '../db/pool.ts';
import { findApiKey, type ApiKey } from '../db/queries/api-keys.ts';
import { VIRTUAL_KEY_PREFIX, findVirtualKey, type VirtualKeyRow } from '../db/queries/virtual-keys.ts';

/** Who calls, as the key says. */
export interface Caller {
  attribution: Attribution;
  /** Present for a virtual key, absent for an API key. */
  virtualKey: VirtualKeyRow | undefined;
  /** null: every model; an entry may end with `*`. */
  allowedModels: readonly string[] | null;
  /** null: no limit. */
  maxParallel: number | null;
  /** null: never. */
  expiresAt: Date | null;
}

interface CachedCaller {
  caller: Caller;
  /** From here on it is read again while it still serves: a key in steady use never waits for the database. */
  refreshMs: number;
  untilMs: number;
}

/** A revoked key works at most this much longer in a process that has just seen it. */
const CACHE_MS = 2_000;
const REFRESH_MS = 1_000;
const CACHE_ENTRIES = 10_000;

/** Resolves keys to callers and counts the calls that run under each key in this process. */
export class Authenticator {
  readonly #db: Queryable;
  readonly #cache = new Map<string, CachedCaller>();
  readonly #lookUps = new Map<string, Promise<Caller>>();
  readonly #running = new Map<string, number>();

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** The caller of a request, or `missing_api_key` / `invalid_api_key`. */
  authenticate(req: IncomingMessage): Promise<Caller> {
    const key = keyOf(req);
    if (key === undefined) {
      const error = new LonghaulError(
        'missing_api_key',
        'send a key as Authorization: Bearer, x-api-key or x-goog-api-key',
      );
      return Promise.reject(error);
    }
    const digest = createHash('sha256').update(key).digest('base64');
    const nowMs = Date.now();
    const cached = this.#cache.get(digest);
    if (cached === undefined || cached.untilMs <= nowMs) return this.#read(key, digest);
    // What the reading finds is the next request's affair: this one has an answer.
    if (cached.refreshMs <= nowMs) this.#read(key, digest).catch(() => undefined);
    return Promise.resolve(cached.caller);
  }

  /** Reads the key's row, once for all who ask meanwhile. */
  #read(key: string, digest: string): Promise<Caller> {
    const running = this.#lookUps.get(digest);
    if (running !== undefined) return running;
    // Counted from before the reading: what is revoked during it is seen in time, too.
    const startedMs = Date.now();
    const reading = this.#lookUp(key)
      .then(
        (caller) => {
          this.#keep(digest, caller, startedMs);
          return caller;
        },
        (error: unknown) => {
          if (error instanceof LonghaulError && error.code === 'invalid_api_key') this.#cache.delete(digest);
          throw error;
        },
      )
      .finally(() => this.#lookUps.delete(digest));
    this.#lookUps.set(digest, reading);
    return reading;
  }

  #keep(digest: string, caller: Caller, startedMs: number): void {
    if (this.#cache.size >= CACHE_ENTRIES) this.#cache.clear();
    const expiresMs = caller.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
    const untilMs = Math.min(startedMs + CACHE_MS, expiresMs);
    this.#cache.set(digest, { caller, refreshMs: startedMs + REFRESH_MS, untilMs });
  }

  async #lookUp(key: string): Promise<Caller> {
    try {
      const caller = key.startsWith(VIRTUAL_KEY_PREFIX)
        ? ofVirtualKey(await findVirtualKey(this.#db, key))
        : ofApiKey(await findApiKey(this.#db, key));
      if (caller !== undefined) return caller;
    } catch (error) {
      if (isOutage(error))
        throw new LonghaulError('database_unavailable', 'the key cannot be checked', { cause: error });
      throw error;
    }
    throw new LonghaulError('invalid_api_key', 'the key is unknown, revoked or expired');
  }

  /** Takes one of the key's parallel calls; the returned function gives it back. */
  takeSlot(caller: Caller): () => void {
    const { maxParallel } = caller;
    if (maxParallel === null) return () => undefined;
    const { keyId } = caller.attribution;
    const running = this.#running.get(keyId) ?? 0;
    if (running >= maxParallel) {
      throw new LonghaulError('too_many_parallel_calls', `this key may run ${maxParallel} calls at once`, {
        retryAfterMs: 1_000,
      });
    }
    this.#running.set(keyId, running + 1);
    return () => {
      const left = (this.#running.get(keyId) ?? 1) - 1;
      if (left <= 0) this.#running.delete(keyId);
      else this.#running.set(keyId, left);
    };
  }
}

/** True when the key may call the model. */
export function mayCall({ allowedModels }: Caller, model: string): boolean {
  if (allowedModels === null) return true;
  return allowedModels.some((entry) => (entry.endsWith('*') ? model.startsWith(entry.slice(0, -1)) : entry === model));
}

function keyOf(req: IncomingMessage): string | undefined {
  const bearer = /^Bearer\s+(\S+)$/i.exec(req.headers.authorization ?? '')?.[1];
  if (bearer !== undefined) return bearer;
  const key = req.headers['x-api-key'] ?? req.headers['x-goog-api-key'];
  return typeof key === 'string' && key !== '' ? key : undefined;
}

function ofVirtualKey(virtualKey: VirtualKeyRow | undefined): Caller | undefined {
  if (virtualKey === undefined) return undefined;
  const { attribution, allowedModels, maxParallel, expiresAt } = virtualKey;
  return { attribution, virtualKey, allowedModels, maxParallel, expiresAt };
}

/** A person's or CI's own call: it belongs to no session. */
function ofApiKey(key: ApiKey | undefined): Caller | undefined {
  if (key === undefined) return undefined;
  if (!key.scopes.includes('gateway')) {
    throw new LonghaulError('forbidden', 'this key is not for model calls');
  }
  const attribution: Attribution = {
    teamId: key.teamId,
    userId: key.userId,
    keyId: key.id,
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
  const { allowedModels, maxParallel, expiresAt } = key;
  return { attribution, virtualKey: undefined, allowedModels, maxParallel, expiresAt };
}
