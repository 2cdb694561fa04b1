import type { EgressTarget, RequestHead } from '../decision.ts';
import { parseAuthority } from '../hosts.ts';
import { EgressFailure } from './failure.ts';
import { endToEnd, valueOf } from './headers.ts';
import type { Inbound } from './inbound.ts';

/** What a tunnel was opened for; requests inside can go nowhere else. */
export interface Tunnel {
  host: string;
  port: number;
  isTls: boolean;
  /** The name in the TLS hello, when it was another one. */
  strayName: string | null;
}

const ABSOLUTE = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?#]*)([^#]*)$/;
const METHOD = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/;

/**
 * What a request asks for, with one reading only. Throws where two programs could read it in two ways: that is how a
 * request is allowed as one thing and served as another.
 */
export function readRequest(inbound: Inbound, tunnel: Tunnel | null, isWebSocket: boolean): RequestHead {
  if (!METHOD.test(inbound.method)) throw new EgressFailure(400, 'malformed_request', 'the method is not one');
  const { target, rest } = tunnel === null ? absolute(inbound) : inside(inbound, tunnel);
  if (!/^[\x21-\x7e]*$/.test(rest) || rest.includes('#')) {
    throw new EgressFailure(400, 'malformed_request', 'the path has characters that must be percent-encoded');
  }
  const question = rest.indexOf('?');
  const headers = endToEnd(inbound.headers);
  checkFraming(inbound);
  return {
    target,
    method: inbound.method,
    path: question < 0 ? rest : rest.slice(0, question),
    query: question < 0 ? null : rest.slice(question + 1),
    headers,
    isWebSocket,
  };
}

/** A plain proxy request: `GET http://host/path`. */
function absolute(inbound: Inbound): { target: EgressTarget; rest: string } {
  const match = ABSOLUTE.exec(inbound.requestTarget);
  if (match === null) {
    const message = 'this is an HTTP proxy: set HTTP_PROXY and HTTPS_PROXY to its address and ask for whole URLs';
    throw new EgressFailure(400, 'not_a_proxy_request', message);
  }
  const [, scheme = '', authority = '', rest = ''] = match;
  if (scheme.toLowerCase() !== 'http') {
    throw new EgressFailure(400, 'malformed_request', `${scheme} URLs need a tunnel: use CONNECT`);
  }
  const where = parseAuthority(authority, 80);
  if (where === null) throw ambiguous(authority);
  matchHost(inbound, where, 80);
  const asterisk = rest === '' && inbound.method === 'OPTIONS';
  const path = asterisk ? '*' : rest.startsWith('/') ? rest : `/${rest}`;
  return { target: { ...where, isTls: false }, rest: path };
}

/** A request in a tunnel: `GET /path`. */
function inside(inbound: Inbound, tunnel: Tunnel): { target: EgressTarget; rest: string } {
  if (tunnel.strayName !== null) {
    const message = `the TLS hello names ${printable(tunnel.strayName)}, the tunnel is for ${tunnel.host}`;
    throw new EgressFailure(421, 'misdirected', message);
  }
  const rest = inbound.requestTarget;
  if (!rest.startsWith('/') && !(rest === '*' && inbound.method === 'OPTIONS')) {
    throw new EgressFailure(421, 'misdirected', 'a request in a tunnel has a path, not a URL');
  }
  matchHost(inbound, tunnel, tunnel.isTls ? 443 : 80);
  return { target: { host: tunnel.host, port: tunnel.port, isTls: tunnel.isTls }, rest };
}

/** Host (or `:authority`) must be there once and name what the connection is for. */
function matchHost(inbound: Inbound, where: { host: string; port: number }, standardPort: number): void {
  const named = inbound.authority === null ? null : parseAuthority(inbound.authority, standardPort);
  if (named !== null && named.host === where.host && named.port === where.port) return;
  const said = inbound.authority === null ? 'no single host' : printable(inbound.authority);
  throw new EgressFailure(421, 'misdirected', `the request names ${said}, the connection is for ${where.host}`);
}

/** The parser refuses most of it already; a proxy in front of others can not be too careful. */
function checkFraming(inbound: Inbound): void {
  const codings = inbound.headers.filter(([name]) => name === 'transfer-encoding');
  const lengths = inbound.headers.filter(([name]) => name === 'content-length');
  const isClear =
    codings.length === 0
      ? lengths.length === 0 || (lengths.length === 1 && /^\d{1,15}$/.test(lengths[0]?.[1] ?? ''))
      : !inbound.isHttp2 && codings.length === 1 && lengths.length === 0 && codings[0]?.[1].toLowerCase() === 'chunked';
  if (!isClear) throw new EgressFailure(400, 'ambiguous_body', 'where the body ends can be read in two ways');
}

/** Declared size of the body; null: unknown, or none. */
export function declaredBytes(inbound: Inbound): number | null {
  const length = valueOf(inbound.headers, 'content-length');
  return length === null ? null : Number(length);
}

const ambiguous = (authority: string): EgressFailure =>
  new EgressFailure(
    400,
    'ambiguous_host',
    `"${printable(authority)}" is not one clear host: names in letters, plain addresses`,
  );

/** Foreign text, for messages and the audit. */
export function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 256);
}
