import type { SessionCredential } from '../../contracts/credentials.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Destination } from '../credentials/bindings.ts';
import { destinationMisfit, isBoundTo } from '../credentials/bindings.ts';
import type { Filled } from '../credentials/fill.ts';
import { fitsHeader, headerOf, headerValue, isInjected } from '../credentials/fill.ts';
import type { RequestHead } from '../decision.ts';
import type { SessionState } from './session-state.ts';

/** Values for one request. */
export interface Values {
  swapped: Filled[];
  injected: Filled[];
  /** Those whose placeholder may stand in the body. */
  body: Filled[];
  /** For the audit: those that are in the head for sure, or may be in the body. */
  names: string[];
  kinds: string[];
  /** The host may know a value of the session, so what it answers is looked through. */
  isKnownThere: boolean;
}

export interface NoValue {
  status: 503 | 403;
  code: string;
  message: string;
}

/** Gets the values of the credentials that a request uses, or says why it cannot go on. */
export async function valuesFor(
  state: SessionState,
  used: readonly SessionCredential[],
  head: RequestHead,
  to: Destination,
): Promise<Values | NoValue> {
  const fitting = state.live.filter((credential) => destinationMisfit(credential, to) === undefined);
  const injected = fitting.filter(
    (credential) =>
      isInjected(credential) &&
      !used.includes(credential) &&
      headerValue(head.headers, headerOf(credential)) === undefined,
  );
  const inBody = hasBody(head) ? fitting.filter((credential) => credential.locations.includes('body')) : [];
  const wanted = new Set([...used, ...firstOfEach(injected), ...inBody]);
  const filled = new Map<SessionCredential, Filled>();
  try {
    await Promise.all(
      [...wanted].map(async (credential) => {
        filled.set(credential, { credential, value: await state.resolve(credential) });
      }),
    );
  } catch (error) {
    return noValue(error, [...wanted]);
  }
  const pick = (list: readonly SessionCredential[]): Filled[] =>
    list.flatMap((credential) => filled.get(credential) ?? []);
  const swapped = pick(used);
  const put = pick(firstOfEach(injected));
  const broken = [...swapped, ...put].find(({ value }) => !fitsHeader(value));
  if (broken !== undefined) {
    const message = `the value of credential ${broken.credential.name} has control characters and cannot stand in a header`;
    return { status: 403, code: 'credential_unfit', message };
  }
  return {
    swapped,
    injected: put,
    body: pick(inBody),
    names: [...wanted].map((credential) => credential.name),
    kinds: [...wanted].map((credential) => credential.kind),
    isKnownThere: state.credentials.some((credential) => isBoundTo(credential, to.host)),
  };
}

/** Two cannot stand in one header: the one the session had first does. */
function firstOfEach(credentials: readonly SessionCredential[]): SessionCredential[] {
  const byHeader = new Map<string, SessionCredential>();
  for (const credential of credentials) {
    const header = headerOf(credential);
    if (!byHeader.has(header)) byHeader.set(header, credential);
  }
  return [...byHeader.values()];
}

function hasBody(head: RequestHead): boolean {
  if (headerValue(head.headers, 'transfer-encoding') !== undefined) return true;
  const length = headerValue(head.headers, 'content-length');
  if (length !== undefined) return length !== '0';
  // HTTP/2 needs neither.
  return !['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE'].includes(head.method);
}

function noValue(error: unknown, wanted: readonly SessionCredential[]): NoValue {
  const names = wanted.map((credential) => credential.name).join(', ');
  const code = error instanceof LonghaulError ? error.code : 'credential_unavailable';
  const isFinal = error instanceof LonghaulError && !error.retryable;
  const what = isFinal ? 'a person has to renew it' : 'try again later';
  return { status: isFinal ? 403 : 503, code, message: `no value for credential ${names}: ${what}` };
}
