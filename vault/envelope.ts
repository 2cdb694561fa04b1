import { createCipheriv, createDecipheriv, randomBytes, type KeyObject } from 'node:crypto';

/** AES-256-GCM in one piece: a byte of format, the nonce, the tag, the text. */
const FORMAT = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + NONCE_BYTES + TAG_BYTES;

/** Where a sealed value belongs. It is authenticated with the value: moved anywhere else, it does not open. */
export interface SealPlace {
  teamId: string;
  vaultId: string;
  credentialId: string;
  version: number;
}

/** The value's own data to authenticate, in one canonical form. */
export function valueContext(place: SealPlace): Buffer {
  return context('longhaul.vault.value', place);
}

/** That of the key a value is sealed with. */
export function keyContext(place: SealPlace, keyId: string): Buffer {
  return context('longhaul.vault.key', place, keyId);
}

function context(purpose: string, place: SealPlace, ...more: string[]): Buffer {
  const { teamId, vaultId, credentialId, version } = place;
  // A list of JSON has one reading whatever is in its parts, as joined text has not.
  return Buffer.from(JSON.stringify([purpose, FORMAT, teamId, vaultId, credentialId, version, ...more]));
}

export function encrypt(key: KeyObject | Buffer, text: Buffer, authenticated: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(authenticated);
  const sealed = Buffer.concat([cipher.update(text), cipher.final()]);
  return Buffer.concat([Buffer.of(FORMAT), nonce, cipher.getAuthTag(), sealed]);
}

/** Throws on any change of what was encrypted, of its place or of its length. */
export function decrypt(key: KeyObject | Buffer, sealed: Buffer, authenticated: Buffer): Buffer {
  if (sealed.length < HEAD_BYTES || sealed[0] !== FORMAT) throw new Error('not a sealed value');
  const nonce = sealed.subarray(1, 1 + NONCE_BYTES);
  const tag = sealed.subarray(1 + NONCE_BYTES, HEAD_BYTES);
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(authenticated);
  decipher.setAuthTag(tag);
  return Buffer.concat([decipher.update(sealed.subarray(HEAD_BYTES)), decipher.final()]);
}
