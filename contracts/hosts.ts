/** Zod-free. Host names and addresses in the one form in which they are compared. */

/** A name of DNS in ASCII; underscores are seen in practice. */
const NAME = /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$/;

/**
 * Lower case, no trailing dot, IDNA in ASCII, an IPv6 address without brackets. Undefined for what is no host, or an address
 * in a form that could be read as another one (octal, hexadecimal, short).
 */
export function canonicalHost(text: string): string | undefined {
  if (text.length === 0 || text.length > 255 || /[\s/\\?#@%]/.test(text)) return undefined;
  const bare = text.endsWith('.') && !text.endsWith('..') ? text.slice(0, -1) : text;
  const isBracketed = bare.startsWith('[') && bare.endsWith(']');
  const inner = isBracketed ? bare.slice(1, -1) : bare;
  const isIpv6 = inner.includes(':');
  if (isBracketed && !isIpv6) return undefined;
  const url = `http://${isIpv6 ? `[${inner}]` : inner}/`;
  if (!URL.canParse(url)) return undefined;
  const { hostname, port, username } = new URL(url);
  if (port !== '' || username !== '') return undefined;
  if (isIpv6) return hostname.slice(1, -1);
  const name = hostname.endsWith('.') ? hostname.slice(0, -1) : hostname;
  if (IPV4.test(name)) return name === inner ? name : undefined;
  return NAME.test(name) && !/^[\d.]+$/.test(name) ? name : undefined;
}

/** A canonical host, or `*.` before one for all names below it. */
export function canonicalHostPattern(text: string): string | undefined {
  if (!text.startsWith('*.')) return canonicalHost(text);
  const suffix = canonicalHost(text.slice(2));
  // `*.com` is nobody's own domain, and addresses have no names below them.
  if (suffix === undefined || !suffix.includes('.') || isAddress(suffix)) return undefined;
  return `*.${suffix}`;
}

/** True for an address, canonical as `canonicalHost` gives it. */
export function isAddress(host: string): boolean {
  return host.includes(':') || IPV4.test(host);
}

/** Both canonical. */
export function hostMatches(pattern: string, host: string): boolean {
  if (!pattern.startsWith('*.')) return pattern === host;
  return host.length > pattern.length - 1 && host.endsWith(pattern.slice(1));
}

/** `10.1.0.0/16`, `fd00::/8`. */
export function isCidr(text: string): boolean {
  const [address = '', bits = '', ...more] = text.split('/');
  if (more.length > 0 || !/^\d{1,3}$/.test(bits)) return false;
  const host = canonicalHost(address);
  return host !== undefined && isAddress(host) && Number(bits) <= (host.includes(':') ? 128 : 32);
}

/** Begins with a slash and has no second reading; `*` stands for a part of a segment, `**` for several segments. */
export function isPathGlob(text: string): boolean {
  return (
    text.startsWith('/') &&
    !/[\\%?#\0-\u0020\u007F]/.test(text) &&
    !/\/\.{1,2}(?:\/|$)/.test(text) &&
    !text.includes('//')
  );
}
