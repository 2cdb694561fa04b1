import type { IncomingHttpHeaders } from 'node:http';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import type { Principal } from '../db/queries/api-keys.ts';
import { findApiKey } from '../db/queries/api-keys.ts';

/** Who sends this request; identity comes from the key alone (invariant 12). */
export async function authenticate(db: Queryable, headers: IncomingHttpHeaders): Promise<Principal> {
  const key = keyOf(headers);
  if (key === undefined) throw new LonghaulError('missing_api_key', 'an API key is needed');
  const principal = await findApiKey(db, key);
  if (principal === undefined) throw new LonghaulError('invalid_api_key', 'the API key is not valid');
  if (!principal.scopes.includes('api')) throw new LonghaulError('forbidden', 'this key is for model calls only');
  return principal;
}

/** The key as it was sent. */
export function keyOf(headers: IncomingHttpHeaders): string | undefined {
  const bearer = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? '')?.[1];
  if (bearer !== undefined) return bearer;
  const plain = headers['x-api-key'];
  return typeof plain === 'string' && plain !== '' ? plain : undefined;
}
