import { createHash, createPublicKey, randomBytes, sign, type X509Certificate, type KeyObject } from 'node:crypto';
import net from 'node:net';
import {
  bitString,
  bool,
  element,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  set,
  tagged,
  time,
  utf8String,
} from './der.ts';

const DAY_MS = 24 * 3_600_000;
/** Clocks of sandboxes elsewhere may be behind. */
const BACKDATED_MS = DAY_MS;
const AUTHORITY_DAYS = 3_650;
export const LEAF_DAYS = 30;

const ECDSA_SHA256 = sequence(objectIdentifier('1.2.840.10045.4.3.2'));
const COMMON_NAME = objectIdentifier('2.5.4.3');
const ORGANIZATION = objectIdentifier('2.5.4.10');

const extension = (oid: string, isCritical: boolean, value: Buffer): Buffer =>
  sequence(objectIdentifier(oid), ...(isCritical ? [bool(true)] : []), octetString(value));
const basicConstraints = (isAuthority: boolean): Buffer =>
  extension('2.5.29.19', true, isAuthority ? sequence(bool(true), integer(Buffer.from([0]))) : sequence());
/** bits: digitalSignature 0, keyCertSign 5, cRLSign 6. */
const keyUsage = (byte: number, unusedBits: number): Buffer =>
  extension('2.5.29.15', true, bitString(Buffer.from([byte]), unusedBits));
const serverAuth = (): Buffer => extension('2.5.29.37', false, sequence(objectIdentifier('1.3.6.1.5.5.7.3.1')));

/** A name in the one form both certificates carry: clients compare issuer and subject byte by byte. */
const name = (commonName: string): Buffer =>
  sequence(set(sequence(ORGANIZATION, utf8String('Longhaul'))), set(sequence(COMMON_NAME, utf8String(commonName))));

/** RFC 5280, 4.2.1.2 (1): the SHA-1 of the key's bits. */
function keyIdentifier(publicKey: Buffer): Buffer {
  const outer = element(publicKey, 0);
  const algorithm = element(publicKey, outer.content);
  const bits = element(publicKey, algorithm.end);
  return createHash('sha1')
    .update(publicKey.subarray(bits.content + 1, bits.end))
    .digest();
}

function alternativeName(host: string): Buffer {
  if (net.isIP(host) === 0) return tagged(0x82, Buffer.from(host, 'ascii'));
  return tagged(0x87, addressBytes(host));
}

function words(part: string): number[] {
  return part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16));
}

function addressBytes(address: string): Buffer {
  if (net.isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  const [head = '', tail] = address.split('::');
  const before = words(head);
  const after = tail === undefined ? [] : words(tail);
  const all = [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after];
  return Buffer.from(all.flatMap((word) => [word >> 8, word & 0xff]));
}

interface Contents {
  issuer: Buffer;
  subject: Buffer;
  publicKey: Buffer;
  days: number;
  extensions: Buffer[];
}

function certificate({ issuer, subject, publicKey, days, extensions }: Contents, signer: KeyObject): string {
  const now = Date.now();
  const serial = randomBytes(16);
  // Positive, and never shorter than it looks.
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const body = sequence(
    tagged(0xa0, integer(Buffer.from([2]))),
    integer(serial),
    ECDSA_SHA256,
    issuer,
    sequence(time(new Date(now - BACKDATED_MS)), time(new Date(now + days * DAY_MS))),
    subject,
    publicKey,
    tagged(0xa3, sequence(...extensions)),
  );
  const signature = sign('sha256', body, signer);
  const der = sequence(body, ECDSA_SHA256, bitString(signature));
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

/** A certificate authority that may sign hosts, and nothing else. */
export function authorityCertificate(key: KeyObject, label: string, days = AUTHORITY_DAYS): string {
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const self = name(`Longhaul egress ${label}`);
  const id = keyIdentifier(publicKey);
  const extensions = [basicConstraints(true), keyUsage(0x06, 1), extension('2.5.29.14', false, octetString(id))];
  return certificate({ issuer: self, subject: self, publicKey, days, extensions }, key);
}

export interface Signer {
  key: KeyObject;
  /** The subject of the authority's certificate, as it stands there. */
  subject: Buffer;
  keyIdentifier: Buffer;
}

/** What of an authority goes into what it signs. */
export function signerOf(key: KeyObject, authority: X509Certificate): Signer {
  const { raw } = authority;
  const body = element(raw, element(raw, 0).content);
  // version, serial, algorithm, issuer, validity, subject
  let offset = body.content;
  for (let skipped = 0; skipped < 5; skipped += 1) offset = element(raw, offset).end;
  const publicKey = authority.publicKey.export({ type: 'spki', format: 'der' });
  return {
    key,
    subject: Buffer.from(raw.subarray(offset, element(raw, offset).end)),
    keyIdentifier: keyIdentifier(publicKey),
  };
}

/** A certificate for one host, name or address. */
export function leafCertificate(host: string, publicKey: Buffer, signer: Signer): string {
  // A common name holds at most 64 characters; clients read the alternative name.
  const subject = name(host.length <= 64 ? host : 'a host with a long name');
  const extensions = [
    basicConstraints(false),
    keyUsage(0x80, 7),
    serverAuth(),
    extension('2.5.29.17', false, sequence(alternativeName(host))),
    extension('2.5.29.14', false, octetString(keyIdentifier(publicKey))),
    extension('2.5.29.35', false, sequence(tagged(0x80, signer.keyIdentifier))),
  ];
  return certificate({ issuer: signer.subject, subject, publicKey, days: LEAF_DAYS, extensions }, signer.key);
}
