import { generateKeyPairSync } from 'node:crypto';
import { createSecureContext, type SecureContext } from 'node:tls';
import type { CertificateAuthority } from './authority.ts';
import { LEAF_DAYS, leafCertificate } from './certificates.ts';

const CACHED_MAX = 1_000;
/** Long before the certificate ends, so none ends while a connection lasts. */
const CACHED_MS = (LEAF_DAYS * 24 * 3_600_000) / 3;

/** Certificates for hosts, made when a sandbox first asks. All have one key, which never leaves this process. */
export class Leaves {
  readonly #authority: CertificateAuthority;
  readonly #key: string;
  readonly #publicKey: Buffer;
  readonly #contexts = new Map<string, { context: SecureContext; madeAtMs: number }>();

  constructor(authority: CertificateAuthority) {
    this.#authority = authority;
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.#key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    this.#publicKey = publicKey.export({ type: 'spki', format: 'der' });
  }

  /** What a server needs to speak as `host`; canonical. */
  contextFor(host: string): SecureContext {
    const known = this.#contexts.get(host);
    this.#contexts.delete(host);
    if (known !== undefined && Date.now() - known.madeAtMs < CACHED_MS) {
      // To the end: the one that was not used for longest goes first.
      this.#contexts.set(host, known);
      return known.context;
    }
    const { signer, certificate } = this.#authority;
    const cert = leafCertificate(host, this.#publicKey, signer) + certificate;
    const context = createSecureContext({ key: this.#key, cert, minVersion: 'TLSv1.2' });
    this.#contexts.set(host, { context, madeAtMs: Date.now() });
    const [oldest] = this.#contexts.keys();
    if (this.#contexts.size > CACHED_MAX && oldest !== undefined) this.#contexts.delete(oldest);
    return context;
  }
}
