import type { Transform } from 'node:stream';
import type { SessionCredential } from '../../contracts/credentials.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Filled } from '../credentials/fill.ts';
import { headerValue, withoutHeader } from '../credentials/fill.ts';
import type { BodyPlaceholder } from '../credentials/request-body.ts';
import { bodyFormOf, encodeFor, swapBody } from '../credentials/request-body.ts';
import { scrubResponse } from '../credentials/response.ts';
import type { Allowed, HeaderList, RequestHead, ResponseHead } from '../decision.ts';
import type { SessionState } from './session-state.ts';

interface BodyChange {
  headers: HeaderList;
  body: (() => Transform) | undefined;
  maxBytes: number;
}

/** What happens to the body of a request: values are put in where they may stand; elsewhere a placeholder breaks it off. */
export function bodyChange(
  state: SessionState,
  head: RequestHead,
  fitting: readonly Filled[],
  onMisuse: (credential: SessionCredential) => Error,
): BodyChange {
  const unchanged = { headers: head.headers, body: undefined, maxBytes: Number.MAX_SAFE_INTEGER };
  const isEncoded = (headerValue(head.headers, 'content-encoding') ?? 'identity') !== 'identity';
  // What is compressed shows no placeholder, and nothing is put into it.
  if (state.credentials.length === 0 || isEncoded || head.isWebSocket) return unchanged;
  const form = bodyFormOf(headerValue(head.headers, 'content-type'));
  const entries: BodyPlaceholder[] = state.credentials.map((credential) => ({
    credential,
    value: fitting.find((one) => one.credential === credential)?.value,
  }));
  const body = (): Transform => swapBody(entries, form, onMisuse);
  if (fitting.length === 0) return { ...unchanged, body };
  const keepsLength = fitting.every(
    ({ credential, value }) => Buffer.byteLength(encodeFor(form, value)) === Buffer.byteLength(credential.placeholder),
  );
  return {
    headers: keepsLength ? head.headers : withoutHeader(head.headers, 'content-length'),
    body,
    maxBytes: LIMITS.egressSwappedBodyBytes,
  };
}

/** What happens to the response of a host that may know a value. */
export function responseChange(state: SessionState, method: string): NonNullable<Allowed['response']> {
  return (head: ResponseHead) => scrubResponse(head, state.matcher, method);
}
