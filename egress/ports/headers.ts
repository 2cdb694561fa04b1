import type { IncomingHttpHeaders } from 'node:http';
import { PORT_TOKEN_HEADER } from '../../contracts/port-links.ts';

/** Name of our cookie on a port's origin. */
export const PORT_COOKIE = 'longhaul_port';

/** Of one connection only; `transfer-encoding` is made anew by who sends. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** What only we may say of a request. */
const OURS = new Set([
  PORT_TOKEN_HEADER,
  'host',
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'x-forwarded-port',
  'x-real-ip',
]);

export type HeaderPairs = [name: string, value: string][];

/** Node's flat list, in pairs. */
export function pairsOf(rawHeaders: readonly string[]): HeaderPairs {
  return rawHeaders.flatMap((name, index): HeaderPairs => {
    return index % 2 === 0 ? [[name, rawHeaders[index + 1] ?? '']] : [];
  });
}

/**
 * True when another page makes the browser ask: the cookie goes along, for the origins of all ports are one site. Following a
 * link is no such thing.
 */
export function isForeign(headers: IncomingHttpHeaders, method: string, origin: string): boolean {
  const site = headers['sec-fetch-site'];
  if (site === undefined) return headers.origin !== undefined && headers.origin !== origin;
  const isVisit = headers['sec-fetch-mode'] === 'navigate' && (method === 'GET' || method === 'HEAD');
  return site !== 'same-origin' && site !== 'none' && !isVisit;
}

/** The value of one cookie. */
export function cookieOf(header: string | undefined, name: string): string | undefined {
  for (const part of (header ?? '').split(';')) {
    const [key, ...rest] = part.trim().split('=');
    if (key === name) return rest.join('=');
  }
  return undefined;
}

/** The visitor's headers as the program gets them: as if it were asked directly, and without anything that is ours. */
export function requestHeaders(
  given: HeaderPairs,
  to: { port: number; origin: string; isUpgrade: boolean },
): HeaderPairs {
  const local = `localhost:${to.port}`;
  const named = new Set(given.flatMap(([name, value]) => (/^connection$/i.test(name) ? tokensOf(value) : [])));
  const kept = given.flatMap(([name, value]): HeaderPairs => {
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || OURS.has(lower) || named.has(lower)) return [];
    // A key of ours that somebody sent here by mistake is nothing for the sandbox.
    if (lower === 'x-api-key' || lower === 'authorization') return /\blh[a-z]_/.test(value) ? [] : [[name, value]];
    if (lower === 'cookie') return withoutOurs(name, value);
    if (lower === 'origin' && value === to.origin) return [[name, `http://${local}`]];
    // It may hold the token of the first visit.
    if (lower === 'referer') return value.startsWith(`${to.origin}/`) ? [] : [[name, value]];
    return [[name, value]];
  });
  const url = new URL(to.origin);
  const added: HeaderPairs = [
    ['Host', local],
    ['X-Forwarded-Host', url.host],
    ['X-Forwarded-Proto', url.protocol.slice(0, -1)],
  ];
  if (to.isUpgrade) added.push(['Connection', 'Upgrade'], ['Upgrade', 'websocket']);
  return [...added, ...kept];
}

function withoutOurs(name: string, value: string): HeaderPairs {
  const others = value.split(';').filter((part) => part.trim().split('=')[0] !== PORT_COOKIE);
  return others.length === 0 ? [] : [[name, others.join(';').trim()]];
}

function tokensOf(value: string): string[] {
  return value.split(',').map((part) => part.trim().toLowerCase());
}

/** The program's headers as the visitor gets them: it sets nothing outside of its own origin. */
export function responseHeaders(given: HeaderPairs, from: { port: number; origin: string }): HeaderPairs {
  return given.flatMap(([name, value]): HeaderPairs => {
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower)) return [];
    if (lower === 'set-cookie') return ownCookie(name, value);
    if (lower === 'location') return [[name, relocated(value, from)]];
    return [[name, value]];
  });
}

function ownCookie(name: string, value: string): HeaderPairs {
  const [first = '', ...attributes] = value.split(';');
  if (first.split('=')[0]?.trim() === PORT_COOKIE) return [];
  const kept = attributes.filter((attribute) => !/^\s*domain\s*=/i.test(attribute));
  return [[name, [first, ...kept].join(';')]];
}

/** A program names itself as it sees itself. */
function relocated(value: string, { port, origin }: { port: number; origin: string }): string {
  const own = new RegExp(`^https?://(localhost|127\\.0\\.0\\.1|\\[::1\\]):${port}(?=/|$)`, 'i');
  return value.replace(own, origin);
}
