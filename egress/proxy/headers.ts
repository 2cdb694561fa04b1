import type { HeaderList } from '../decision.ts';

/** Between two neighbours only (RFC 9110, 7.6.1), and what is the proxy's own. */
const HOP_BY_HOP = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Names in lower case, pairs; from the flat list of Node. */
export function pairsOf(raw: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let index = 0; index + 1 < raw.length; index += 2) {
    pairs.push([(raw[index] ?? '').toLowerCase(), raw[index + 1] ?? '']);
  }
  return pairs;
}

/** What goes on to the other side. */
export function endToEnd(pairs: readonly (readonly [string, string])[]): [string, string][] {
  const named = new Set<string>();
  for (const [name, value] of pairs) {
    if (name === 'connection') for (const token of value.split(',')) named.add(token.trim().toLowerCase());
  }
  const kept: [string, string][] = [];
  for (const [name, value] of pairs) {
    if (HOP_BY_HOP.has(name) || named.has(name) || name.startsWith(':')) {
      // What gRPC needs, and all that HTTP/2 lets through.
      if (name === 'te' && /(^|[,\s])trailers([,;\s]|$)/i.test(value)) kept.push(['te', 'trailers']);
      continue;
    }
    kept.push([name, value]);
  }
  return kept;
}

/** The flat list Node takes. */
export function flat(pairs: HeaderList): string[] {
  const list: string[] = [];
  for (const [name, value] of pairs) list.push(name, value);
  return list;
}

/** Pairs of the headers of HTTP/2, which may hold lists. */
export function pairsOfHttp2(raw: readonly string[]): [string, string][] {
  return pairsOf(raw).filter(([name]) => !name.startsWith(':'));
}

/** As HTTP/2 takes them: a name that comes more than once has a list. */
export function asHttp2(pairs: HeaderList): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of pairs) {
    if (HOP_BY_HOP.has(name) && name !== 'te') continue;
    const known = headers[name];
    if (known === undefined) headers[name] = value;
    else headers[name] = [...(Array.isArray(known) ? known : [known]), value];
  }
  return headers;
}

/** The first value, or null. */
export function valueOf(pairs: HeaderList, name: string): string | null {
  return pairs.find(([each]) => each === name)?.[1] ?? null;
}

export const without = (pairs: HeaderList, ...names: string[]): [string, string][] =>
  pairs.filter(([name]) => !names.includes(name)).map(([name, value]) => [name, value]);
