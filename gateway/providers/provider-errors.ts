import { LonghaulError, type ErrorCode } from '../../contracts/error-codes.ts';
import type { ProtocolError } from '../protocol.ts';
import { retryAfterMsOf } from '../routing/failures.ts';

const MAX_MESSAGE_CHARS = 4_000;

/**
 * A provider's error answer in our words, and its own answer to be passed on: clients know how to read that. A
 * refusal of the gateway's own key or account is not passed on: it is no fault of the caller's key, which a client
 * would take it for, and it can hold a piece of ours.
 */
export function providerFailure(original: Required<ProtocolError>['original']): ProtocolError {
  const code = isRefusedGoogleKey(original) ? 'provider_auth' : codeOf(original.status);
  if (code === 'provider_auth') {
    return { error: new LonghaulError(code, `the provider refused the gateway's key (${original.status})`) };
  }
  const message = messageOf(original.body) ?? `the provider answered ${original.status}`;
  const retryAfterMs = retryAfterMsOf(original.headers);
  const options = retryAfterMs === undefined ? {} : { retryAfterMs };
  return { error: new LonghaulError(code, message.slice(0, MAX_MESSAGE_CHARS), options), original };
}

function codeOf(status: number): ErrorCode {
  if (status === 401 || status === 402 || status === 403) return 'provider_auth';
  if (status === 404) return 'model_not_found';
  if (status === 408 || status === 504) return 'provider_timeout';
  if (status === 429) return 'provider_rate_limited';
  if (status >= 500) return 'provider_unavailable';
  return 'provider_rejected';
}

/** Google answers 400 to a key it does not know. */
function isRefusedGoogleKey({ status, body }: Required<ProtocolError>['original']): boolean {
  return status === 400 && body.includes('"API_KEY_INVALID"');
}

function messageOf(body: Buffer): string | undefined {
  const text = body.toString('utf8').trim();
  try {
    const error = (JSON.parse(text) as { error?: unknown } | null)?.error;
    if (typeof error === 'string') return error;
    const message = (error as { message?: unknown } | null | undefined)?.message;
    return typeof message === 'string' ? message : undefined;
  } catch {
    return text === '' ? undefined : text;
  }
}
