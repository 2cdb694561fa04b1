import { randomBytes } from 'node:crypto';
import type { SecretParts } from '../contracts/credentials.ts';
import type { SealedValue } from '../db/queries/credentials.ts';
import { encrypt, keyContext, valueContext, type SealPlace } from './envelope.ts';
import type { KeyRing } from './key-ring.ts';

const PAD_BYTES = 64;

/** Seals a secret under a key of its own, which the current master key wraps. */
export function sealParts(ring: KeyRing, place: SealPlace, parts: SecretParts): SealedValue {
  const valueKey = randomBytes(32);
  const text = padded(JSON.stringify(parts));
  try {
    return {
      keyId: ring.current.id,
      wrappedKey: encrypt(ring.current.key, valueKey, keyContext(place, ring.current.id)),
      sealed: encrypt(valueKey, text, valueContext(place)),
    };
  } finally {
    valueKey.fill(0);
    text.fill(0);
  }
}

/** White space behind JSON means nothing, and hides how long the secret is. */
function padded(json: string): Buffer {
  const length = Buffer.byteLength(json);
  return Buffer.from(json.padEnd(json.length + ((PAD_BYTES - (length % PAD_BYTES)) % PAD_BYTES), ' '));
}
