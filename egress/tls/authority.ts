import { createPrivateKey, generateKeyPairSync, randomBytes, X509Certificate, type KeyObject } from 'node:crypto';
import { chmodSync, existsSync, linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { rootCertificates } from 'node:tls';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { authorityCertificate, signerOf, type Signer } from './certificates.ts';

const RENEW_BEFORE_MS = 365 * 24 * 3_600_000;

/** Where systems keep the authorities they trust. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** The installation's own certificate authority: sandboxes trust it, the broker signs hosts with it. */
export interface CertificateAuthority {
  certificate: string;
  signer: Signer;
}

/**
 * Reads the authority of an installation, or makes it: once, whoever else starts at the same moment. Key and certificate
 * are one file, so no death in the middle leaves one without the other; only its owner may read it.
 */
export function ensureAuthority(folder: string): CertificateAuthority {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const file = path.join(folder, 'authority.pem');
  const old = read(file);
  if (old !== null && expiresAtMs(old.certificate) - Date.now() > RENEW_BEFORE_MS) return old;
  const temporary = path.join(folder, `.authority.${process.pid}.${randomBytes(4).toString('hex')}`);
  writeFileSync(temporary, newAuthority(), { mode: 0o600, flag: 'wx' });
  try {
    if (old !== null) renameSync(temporary, file);
    else linkSync(temporary, file);
  } catch (error) {
    // Somebody else was first: theirs it is.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    rmSync(temporary, { force: true });
  }
  const made = read(file);
  if (made === null) throw new LonghaulError('internal', `${file} cannot be read`);
  return made;
}

function newAuthority(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return key + authorityCertificate(privateKey, randomBytes(4).toString('hex'));
}

function read(file: string): CertificateAuthority | null {
  if (!existsSync(file)) return null;
  const text = readFileSync(file, 'utf8');
  chmodSync(file, 0o600);
  const start = text.indexOf('-----BEGIN CERTIFICATE-----');
  const certificate = text.slice(start);
  const key: KeyObject = createPrivateKey(text.slice(0, start));
  return { certificate, signer: signerOf(key, new X509Certificate(certificate)) };
}

const expiresAtMs = (certificate: string): number => new Date(new X509Certificate(certificate).validTo).getTime();

/** The authorities of this machine, as PEM; Node's own list where it has none. */
export function systemAuthorities(): string {
  for (const file of SYSTEM_BUNDLES) {
    if (existsSync(file)) return readFileSync(file, 'utf8');
  }
  return rootCertificates.join('\n');
}

/**
 * What programs in sandboxes trust: the machine's authorities and ours. It is bound into them as a file, so it is
 * replaced only when it would change.
 */
export function writeTrustBundle(file: string, certificate: string): string {
  const content = `${systemAuthorities().trimEnd()}\n\n# Longhaul egress broker\n${certificate}`;
  if (existsSync(file) && readFileSync(file, 'utf8') === content) return file;
  mkdirSync(path.dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, content, { mode: 0o644 });
  chmodSync(temporary, 0o644);
  renameSync(temporary, file);
  return file;
}
