import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/**
 * Tokens of sandboxes. They follow from the id and a key in the home, so that a connect gives the same token again and the
 * database holds none.
 */
export class Tokens {
  private readonly key: Buffer;

  constructor(key: Buffer) {
    this.key = key;
  }

  /** The key of a home, made on first use. */
  static ofHome(home: string): Tokens {
    const file = path.join(home, 'e2b-token-key');
    const temporary = `${file}.${process.pid}.tmp`;
    writeFileSync(temporary, randomBytes(32), { mode: 0o600 });
    try {
      // A link is made once only: of two servers that start, both use the first one's.
      linkSync(temporary, file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    } finally {
      rmSync(temporary, { force: true });
    }
    return new Tokens(readFileSync(file));
  }

  /** For commands and files of the sandbox. */
  access(sandboxId: string): string {
    return `ea_${this.derive('envd', sandboxId)}`;
  }

  /** For the ports its programs listen on. */
  traffic(sandboxId: string): string {
    return `ta_${this.derive('traffic', sandboxId)}`;
  }

  /** True when the URL of a file was signed with the sandbox's token and is not over. */
  isSigned(sandboxId: string, signed: SignedUrl, nowMs = Date.now()): boolean {
    const { path: file, operation, user, signature, expiration } = signed;
    if (expiration !== null && (!/^\d{1,12}$/.test(expiration) || Number(expiration) * 1_000 < nowMs)) return false;
    const fields = [file, operation, user, this.access(sandboxId), ...(expiration === null ? [] : [expiration])];
    const digest = createHash('sha256').update(fields.join(':')).digest('base64').replace(/=+$/, '');
    return isSame(signature, `v1_${digest}`);
  }

  private derive(purpose: string, sandboxId: string): string {
    return createHmac('sha256', this.key).update(`${purpose}\0${sandboxId}`).digest('base64url');
  }
}

export interface SignedUrl {
  path: string;
  operation: 'read' | 'write';
  user: string;
  signature: string;
  /** Unix seconds. */
  expiration: string | null;
}

/** Compares in constant time. */
export function isSame(given: string, wanted: string): boolean {
  return timingSafeEqual(sha256(given), sha256(wanted));
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
