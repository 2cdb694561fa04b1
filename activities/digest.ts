import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { IdKind } from '../contracts/ids.ts';
import { ID_PREFIX } from '../contracts/ids.ts';

/** SHA-256, hex, of the RFC 8785 canonical JSON of `value`. */
export function digestOf(value: unknown): string {
  const canonical = canonicalize(value);
  if (canonical === undefined) throw new TypeError('the value has no canonical JSON');
  return createHash('sha256').update(canonical).digest('hex');
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/**
 * An id that a retried activity makes again: same kind and place, same id. Looks like `newId` and starts with the hash
 * where that has the time, so it does not sort by age.
 */
export function derivedId(kind: IdKind, place: string): string {
  const hash = createHash('sha256').update(`${kind}:${place}`).digest();
  return `${ID_PREFIX[kind]}_${Array.from(hash.subarray(0, 26), (byte) => ALPHABET.charAt(byte % 32)).join('')}`;
}
