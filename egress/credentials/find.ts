import type { InjectionLocation, SessionCredential } from '../../contracts/credentials.ts';
import type { RequestHead } from '../decision.ts';

/** A placeholder in the head of a request. `path`: where none may ever stand. */
export interface Finding {
  credential: SessionCredential;
  location: InjectionLocation | 'path';
  /** Lower case; null outside of headers. */
  header: string | null;
}

/** Tokens as long as a placeholder that may be one. */
const TOKEN = /[A-Za-z0-9_-][A-Za-z0-9_.-]{18,}[A-Za-z0-9_-]/g;
const MAX_TOKENS = 64;
/** No placeholder is longer. */
const MAX_TOKEN_CHARS = 512;
/** Headers whose long tokens are no credentials. */
const NO_CREDENTIALS =
  /^(?:accept.*|user-agent|host|content-.*|if-.*|etag|range|date|via|te|traceparent|tracestate|sec-.*|origin|referer|connection|upgrade|git-protocol|npm-session|x-request-id)$/;

/** Each of the session's placeholders in the head, with the place where it stands. */
export function findPlaceholders(head: RequestHead, credentials: readonly SessionCredential[]): Finding[] {
  const findings: Finding[] = [];
  const look = (text: string, location: Finding['location'], header: string | null): void => {
    for (const credential of credentials) {
      if (text.includes(credential.placeholder)) findings.push({ credential, location, header });
    }
  };
  if (credentials.length === 0) return findings;
  look(decoded(head.path), 'path', null);
  if (head.query !== null) look(decoded(head.query), 'query', null);
  for (const [name, value] of head.headers) {
    look(value, 'header', name);
    const basic = basicOf(name, value);
    if (basic !== undefined) look(basic, 'basic', name);
  }
  return findings;
}

/** What else in the head could be a placeholder: of another session, or a guess. */
export function tokensOf(head: RequestHead): string[] {
  const texts = head.query === null ? [] : [decoded(head.query)];
  for (const [name, value] of head.headers) {
    if (NO_CREDENTIALS.test(name)) continue;
    texts.push(value, basicOf(name, value) ?? '');
  }
  const tokens = new Set(texts.flatMap((text) => text.match(TOKEN) ?? []).filter(isAsShort));
  return [...tokens].slice(0, MAX_TOKENS);
}

const isAsShort = (token: string): boolean => token.length <= MAX_TOKEN_CHARS;

/** User and password of a Basic header, as text; undefined for any other. */
export function basicOf(name: string, value: string): string | undefined {
  if (name !== 'authorization' && name !== 'proxy-authorization') return undefined;
  const encoded = /^\s*basic\s+([A-Za-z0-9+/_=-]+)\s*$/i.exec(value)?.[1];
  return encoded === undefined ? undefined : Buffer.from(encoded, 'base64').toString('latin1');
}

/** Percent escapes read once, also where some of them are none. */
export function decoded(text: string): string {
  return text.replaceAll(/%[0-9a-f]{2}/gi, (escape) => String.fromCharCode(Number.parseInt(escape.slice(1), 16)));
}
