import { execFile } from 'node:child_process';
import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureAuthority, writeTrustBundle } from '../../egress/tls/authority.ts';
import { authorityCertificate, leafCertificate, signerOf } from '../../egress/tls/certificates.ts';

const run = promisify(execFile);
const BUILT = pathToFileURL(fileURLToPath(new URL('../../dist/egress/tls/authority.js', import.meta.url))).href;

describe('certificates', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-ca-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it.each([
    ['example.com', '-verify_hostname'],
    ['xn--mnchen-3ya.de', '-verify_hostname'],
    [`${'a'.repeat(60)}.${'b'.repeat(60)}.example.com`, '-verify_hostname'],
    ['192.0.2.7', '-verify_ip'],
    ['2001:db8::a:1', '-verify_ip'],
    ['::1', '-verify_ip'],
  ])('openssl takes one for %s in its strictest mode', async (host, flag) => {
    const authority = ensureAuthority(path.join(folder, 'strict'));
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const leaf = leafCertificate(host, publicKey.export({ type: 'spki', format: 'der' }), authority.signer);
    const files = { ca: path.join(folder, 'ca.pem'), leaf: path.join(folder, 'leaf.pem') };
    writeFileSync(files.ca, authority.certificate);
    writeFileSync(files.leaf, leaf);
    const strict = ['verify', '-x509_strict', '-purpose', 'sslserver', '-CAfile', files.ca];
    const { stdout } = await run('openssl', [...strict, flag, host, files.leaf]);
    expect(stdout).toContain('OK');
    const other = flag === '-verify_ip' ? '192.0.2.8' : 'other.example.com';
    await expect(run('openssl', [...strict, flag, other, files.leaf])).rejects.toThrow(/mismatch/);
    const { issuer, subject } = new X509Certificate(leaf);
    expect(issuer).toBe(new X509Certificate(authority.certificate).subject);
    expect(subject).not.toBe(issuer);
  });

  it('an authority is made once, whoever starts at the same moment', async () => {
    const home = path.join(folder, 'race');
    const script = `const { ensureAuthority } = await import(process.argv[1]); process.stdout.write(ensureAuthority(process.argv[2]).certificate);`;
    const starts = Array.from({ length: 6 }, () =>
      run(process.execPath, ['--input-type=module', '-e', script, '--', BUILT, home]),
    );
    const certificates = (await Promise.all(starts)).map(({ stdout }) => stdout);
    expect(new Set(certificates).size).toBe(1);
    expect(statSync(path.join(home, 'authority.pem')).mode & 0o777).toBe(0o600);
    expect(statSync(home).mode & 0o077).toBe(0);
    expect(ensureAuthority(home).certificate).toBe(certificates[0]);
  }, 120_000);

  it('an authority that is about to end is replaced', () => {
    const home = path.join(folder, 'old');
    const first = ensureAuthority(home).certificate;
    const file = path.join(home, 'authority.pem');
    const pem = readFileSync(file, 'utf8');
    const key = createPrivateKey(pem.slice(0, pem.indexOf('-----BEGIN CERTIFICATE-----')));
    const soonOver = authorityCertificate(key, 'old', 300);
    writeFileSync(file, pem.slice(0, pem.indexOf('-----BEGIN CERTIFICATE-----')) + soonOver);
    const second = ensureAuthority(home).certificate;
    expect([first, soonOver]).not.toContain(second);
    expect(ensureAuthority(home).certificate).toBe(second);
  });

  it('the trust bundle has the system and us, and stays the same file while nothing changes', () => {
    const home = path.join(folder, 'bundle');
    const { certificate } = ensureAuthority(home);
    const file = writeTrustBundle(path.join(home, 'trust-bundle.pem'), certificate);
    const before = statSync(file);
    expect(before.mode & 0o777).toBe(0o644);
    const text = readFileSync(file, 'utf8');
    expect(text.trimEnd().endsWith(certificate.trimEnd())).toBe(true);
    expect(text.match(/BEGIN CERTIFICATE/g)?.length).toBeGreaterThan(20);
    expect(text).not.toContain('PRIVATE');
    expect(statSync(writeTrustBundle(path.join(home, 'trust-bundle.pem'), certificate)).ino).toBe(before.ino);
  });

  it('what an authority signs names it as it names itself, byte by byte', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const certificate = new X509Certificate(authorityCertificate(privateKey, 'x'));
    const signer = signerOf(privateKey, certificate);
    expect(certificate.raw.indexOf(signer.subject)).toBeGreaterThan(0);
    expect(certificate.raw.lastIndexOf(signer.subject)).toBeGreaterThan(certificate.raw.indexOf(signer.subject));
    expect(certificate.checkIssued(certificate)).toBe(true);
  });
});
