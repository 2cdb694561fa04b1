import { LonghaulError, type ErrorCode } from '../../contracts/error-codes.ts';
import type { ProtocolError } from '../protocol.ts';

const MAX_MESSAGE_CHARS = 4_000;

/** Our word for a provider's error answer; its own message, type and code are kept where they are harmless. */
export function providerFailure(status: number, headers: Record<string, string>, body: Buffer): ProtocolError {
  const said = readProviderError(body);
  const code = codeOf(status);
  // What a provider says about a bad key can hold a piece of that key.
  const message = code === 'provider_auth' ? `the provider refused the gateway's key (${status})` : said.message;
  const retryAfterMs = retryAfterMsOf(headers['retry-after']);
  return {
    error: new LonghaulError(
      code,
      (message ?? `the provider answered ${status}`).slice(0, MAX_MESSAGE_CHARS),
      retryAfterMs === undefined ? {} : { retryAfterMs },
    ),
    provider: {
      ...(said.type === undefined ? {} : { type: said.type }),
      ...(said.code === undefined ? {} : { code: said.code }),
    },
  };
}

function codeOf(status: number): ErrorCode {
  if (status === 401 || status === 402 || status === 403) return 'provider_auth';
  if (status === 404) return 'model_not_found';
  if (status === 408 || status === 504) return 'provider_timeout';
  if (status === 429) return 'provider_rate_limited';
  if (status >= 500) return 'provider_unavailable';
  return 'provider_rejected';
}

function readProviderError(body: Buffer): { message?: string; type?: string; code?: string } {
  const text = body.toString('utf8');
  let error: unknown;
  try {
    error = (JSON.parse(text) as { error?: unknown } | null)?.error;
  } catch {
    return text.trim() === '' ? {} : { message: text.trim() };
  }
  if (typeof error === 'string') return { message: error };
  if (typeof error !== 'object' || error === null) return {};
  const { message, type, code } = error as Record<string, unknown>;
  return {
    ...(typeof message === 'string' ? { message } : {}),
    ...(typeof type === 'string' ? { type } : {}),
    ...(typeof code === 'string' ? { code } : {}),
  };
}

function retryAfterMsOf(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const seconds = Number(value);
  if (Number.isFinite(seconds)) return seconds >= 0 ? seconds * 1_000 : undefined;
  const atMs = Date.parse(value);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - Date.now());
}
