import net from 'node:net';
import { domainToASCII } from 'node:url';

/** A host with one spelling: what is compared, decided about and dialled. */
export interface CanonicalHost {
  host: string;
  kind: 'name' | 'ipv4' | 'ipv6';
}

export interface Authority {
  host: string;
  port: number;
}

/** Anything but letters, marks, digits and what stands for a dot in some script. */
const STRANGE = /[^\p{L}\p{M}\p{N}._\u{B7}\u{3002}\u{FF0E}-]/u;
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
/** What resolvers may take for an IPv4 address although it is not written as one: 0x7f.1, 017700000001, 127.1. */
const NUMERIC_LABEL = /^(?:\d+|0x[0-9a-f]*)$/;

/**
 * The one spelling of a host, or null when it has none: something in it that programs read in different ways. Case, one
 * trailing dot and IDNA are evened out; IPv4 must be four decimal numbers, IPv6 without zone.
 */
export function canonicalHost(given: string): CanonicalHost | null {
  if (given.startsWith('[')) return given.endsWith(']') ? canonicalIpv6(given.slice(1, -1)) : null;
  if (given.includes(':')) return canonicalIpv6(given);
  if (given === '' || given.length > 1_024 || STRANGE.test(given)) return null;
  // Plain names need no table of Unicode, and may have what it forbids.
  const ascii = /^[\x21-\x7e]*$/.test(given) ? given.toLowerCase() : domainToASCII(given);
  const host = ascii.endsWith('.') ? ascii.slice(0, -1) : ascii;
  if (net.isIPv4(host)) return host === given ? { host, kind: 'ipv4' } : null;
  const labels = host.split('.');
  if (host.length > 253 || !labels.every((label) => LABEL.test(label))) return null;
  if (NUMERIC_LABEL.test(labels.at(-1) ?? '')) return null;
  return { host, kind: 'name' };
}

function canonicalIpv6(given: string): CanonicalHost | null {
  // net.isIPv6 takes zones.
  if (given.includes('%') || !net.isIPv6(given)) return null;
  return { host: new URL(`http://[${given}]`).hostname.slice(1, -1), kind: 'ipv6' };
}

/** `host:port` as in CONNECT, Host and :authority. Header bytes are read as UTF-8. null: none, or ambiguous. */
export function parseAuthority(given: string, standardPort: number | null): Authority | null {
  const text = /^[\x21-\x7e]*$/.test(given) ? given : Buffer.from(given, 'latin1').toString('utf8');
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(text);
  if (match === null) return null;
  const port = match[2] === undefined ? standardPort : Number(match[2]);
  const host = canonicalHost(match[1] ?? '');
  if (host === null || port === null || port < 1 || port > 65_535) return null;
  return { host: host.host, port };
}

/** As it stands in a Host header or a URL. */
export function formatAuthority({ host, port }: Authority, standardPort: number): string {
  const name = host.includes(':') ? `[${host}]` : host;
  return port === standardPort ? name : `${name}:${port}`;
}
