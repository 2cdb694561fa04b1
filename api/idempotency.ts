import type { Request } from 'express';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import { findStoredResponse, lockIdempotencyKey, storeResponse } from '../db/queries/idempotency.ts';

/** The request's `Idempotency-Key`. Throws when it is no key. */
export function idempotencyKey(req: Request): string | undefined {
  const key = req.headers['idempotency-key'];
  if (key === undefined) return undefined;
  if (typeof key !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(key)) {
    throw new LonghaulError('invalid_request', 'must be 1 to 255 visible ASCII characters', {
      field: 'Idempotency-Key',
    });
  }
  return key;
}

/** One request under its key; without a key every request is a new one. */
export interface Keyed<T> {
  principalId: string;
  key: string | undefined;
  /** Method and path. */
  route: string;
  /** Of the body, called only where there is a key: the same key with another body is refused. */
  bodyDigest: () => string;
  work: () => Promise<T>;
  /** What may be stored of the answer. */
  storable: (made: T) => unknown;
}

/** Key, work and stored answer in one transaction: the same key gets the first answer again. */
export async function onceUnderKey<T>(
  tx: Queryable,
  asked: Keyed<T>,
): Promise<{ response: unknown; replayed: boolean }> {
  const { principalId, key, route } = asked;
  if (key === undefined) return { response: await asked.work(), replayed: false };
  const bodyDigest = asked.bodyDigest();
  if (!(await lockIdempotencyKey(tx, principalId, key))) {
    throw new LonghaulError('idempotency_in_progress', 'a request with this Idempotency-Key is running');
  }
  const stored = await findStoredResponse(tx, principalId, key);
  if (stored !== undefined) {
    if (stored.route !== route || stored.bodyDigest !== bodyDigest) {
      throw new LonghaulError('idempotency_conflict', 'this Idempotency-Key was used for another request');
    }
    return { response: stored.response, replayed: true };
  }
  const made = await asked.work();
  await storeResponse(tx, principalId, key, { route, bodyDigest, status: 200, response: asked.storable(made) });
  return { response: made, replayed: false };
}
