import net from 'node:net';
import os from 'node:os';

const OWN_CACHE_MS = 10_000;

/** Every IPv4 range that is not the public internet (RFC 6890 and after), and the metadata service of a cloud that is. */
const FORBIDDEN_IPV4: [string, number][] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['168.63.129.16', 32],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.31.196.0', 24],
  ['192.52.193.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['192.175.48.0', 24],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
];

/** Within 2000::/3, which is all of IPv6 that is public: special uses, documentation, and IPv4 in disguise (Teredo, 6to4). */
const FORBIDDEN_GLOBAL_IPV6: [string, number][] = [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['2620:4f:8000::', 48],
  ['3fff::', 20],
];

const forbidden4 = new net.BlockList();
for (const [address, bits] of FORBIDDEN_IPV4) forbidden4.addSubnet(address, bits, 'ipv4');
const global6 = new net.BlockList();
global6.addSubnet('2000::', 3, 'ipv6');
const forbidden6 = new net.BlockList();
for (const [address, bits] of FORBIDDEN_GLOBAL_IPV6) forbidden6.addSubnet(address, bits, 'ipv6');

/**
 * True for an address of the public internet that is not this machine's. Everything else is refused unless it is opened:
 * loopback, link-local, metadata, private, shared, multicast, unspecified, and each form of IPv6 that holds an IPv4 address.
 */
export function isPublicAddress(address: string): boolean {
  if (ownAddresses().has(address)) return false;
  if (net.isIPv4(address)) return !forbidden4.check(address, 'ipv4');
  if (!net.isIPv6(address) || address.includes('%')) return false;
  return global6.check(address, 'ipv6') && !forbidden6.check(address, 'ipv6');
}

/** True for loopback and this machine's own addresses, however they are written. */
export function isOwnAddress(address: string): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, '');
  return ownAddresses().has(plain) || loopback.check(plain, net.isIPv6(plain) ? 'ipv6' : 'ipv4');
}

const loopback = new net.BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addSubnet('0.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');
loopback.addAddress('::', 'ipv6');
loopback.addSubnet('::ffff:0:0', 96, 'ipv6');

let own = { addresses: new Set<string>(), readAtMs: Number.NEGATIVE_INFINITY };

/** What answers at the machine's own public address is as little meant for sandboxes as what answers on loopback. */
function ownAddresses(): Set<string> {
  if (performance.now() - own.readAtMs < OWN_CACHE_MS) return own.addresses;
  const interfaces = Object.values(os.networkInterfaces()).flatMap((entries) => entries ?? []);
  const addresses = new Set(interfaces.map(({ address }) => canonical(address)));
  own = { addresses, readAtMs: performance.now() };
  return addresses;
}

/** As resolvers and `canonicalHost` write it. */
function canonical(address: string): string {
  const plain = address.replace(/%.*$/, '');
  return net.isIPv6(plain) ? new URL(`http://[${plain}]`).hostname.slice(1, -1) : plain;
}
