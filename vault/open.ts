import type { SecretParts } from '../contracts/credentials.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { SealedValue } from '../db/queries/credentials.ts';
import { decrypt, encrypt, keyContext, valueContext, type SealPlace } from './envelope.ts';
import type { KeyRing, MasterKey } from './key-ring.ts';

/** Opens what `sealParts` sealed for this very place. The broker alone imports this file. */
export function openParts(ring: KeyRing, place: SealPlace, value: SealedValue): SecretParts {
  const master = requireKey(ring, value.keyId);
  const valueKey = unwrap(master, place, value.wrappedKey);
  let text: Buffer | undefined;
  try {
    text = decrypt(valueKey, value.sealed, valueContext(place));
    return JSON.parse(text.toString('utf8')) as SecretParts;
  } catch {
    throw damaged(place);
  } finally {
    valueKey.fill(0);
    text?.fill(0);
  }
}

/** Wraps a value's key under the current master key; the value itself is not touched, and not opened. */
export function rewrap(
  ring: KeyRing,
  place: SealPlace,
  wrapped: { keyId: string; wrappedKey: Buffer },
): { keyId: string; wrappedKey: Buffer } {
  const valueKey = unwrap(requireKey(ring, wrapped.keyId), place, wrapped.wrappedKey);
  const { id, key } = ring.current;
  try {
    return { keyId: id, wrappedKey: encrypt(key, valueKey, keyContext(place, id)) };
  } finally {
    valueKey.fill(0);
  }
}

function requireKey(ring: KeyRing, keyId: string): MasterKey {
  const key = ring.find(keyId);
  if (key !== undefined) return key;
  throw new LonghaulError(
    'credential_unavailable',
    `the value is sealed under the master key ${keyId}, which is not here`,
  );
}

function unwrap(master: MasterKey, place: SealPlace, wrappedKey: Buffer): Buffer {
  try {
    return decrypt(master.key, wrappedKey, keyContext(place, master.id));
  } catch {
    throw damaged(place);
  }
}

/** Without the cause: what OpenSSL says helps nobody but who tries. */
function damaged({ credentialId, version }: SealPlace): LonghaulError {
  return new LonghaulError(
    'credential_unavailable',
    `version ${version} of credential ${credentialId} does not open: it was changed, moved or cut`,
  );
}
