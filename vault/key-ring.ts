import { createHmac, type KeyObject, createSecretKey } from 'node:crypto';
import { LonghaulError } from '../contracts/error-codes.ts';

const KEY_BYTES = 32;

/** One master key. Its id follows from it, so that no configuration can name the wrong one. */
export interface MasterKey {
  id: string;
  key: KeyObject;
}

/** The master keys of a process: new values are sealed under the current one, the others only open what they sealed. */
export class KeyRing {
  readonly current: MasterKey;
  readonly #byId: ReadonlyMap<string, MasterKey>;

  private constructor(keys: readonly [MasterKey, ...MasterKey[]]) {
    this.current = keys[0];
    this.#byId = new Map(keys.map((key) => [key.id, key]));
  }

  /** Keys of 32 bytes in base64 or hexadecimal with white space or commas between them; the first is the current one. */
  static parse(text: string): KeyRing {
    const [first, ...others] = text
      .split(/[\s,]+/)
      .filter((part) => part !== '')
      .map((part, index) => masterKey(decode(part, index)));
    if (first === undefined) throw new LonghaulError('setup_required', 'LONGHAUL_VAULT_KEY holds no key');
    return new KeyRing([first, ...others]);
  }

  find(id: string): MasterKey | undefined {
    return this.#byId.get(id);
  }

  get ids(): string[] {
    return [...this.#byId.keys()];
  }
}

function masterKey(bytes: Buffer): MasterKey {
  const id = createHmac('sha256', bytes).update('longhaul vault key id').digest('hex').slice(0, 16);
  const key = createSecretKey(bytes);
  bytes.fill(0);
  return { id, key };
}

/** The message tells which one, never what it was. */
function decode(text: string, index: number): Buffer {
  const isHex = /^[0-9a-fA-F]{64}$/.test(text);
  const isBase64 = /^[A-Za-z0-9+/_-]{43}=?$/.test(text);
  const bytes = isHex ? Buffer.from(text, 'hex') : Buffer.from(isBase64 ? text : '', 'base64');
  if (bytes.length === KEY_BYTES) return bytes;
  throw new LonghaulError(
    'setup_required',
    `key ${index + 1} of LONGHAUL_VAULT_KEY is not ${KEY_BYTES} bytes in base64 or hexadecimal (openssl rand -base64 32)`,
  );
}
