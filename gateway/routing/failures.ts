import type { AttemptFailure } from '../../contracts/routing.ts';

/** How providers say that a prompt does not fit. */
const CONTEXT_WINDOW =
  /context[ _-]?(length|window)|maximum context|prompt is too long|input is too long|too many (input )?tokens|exceeds? the (maximum )?(context|token)|string_above_max_length/i;
const CONTENT_POLICY = /content[ _-]?(policy|filter|management)|responsible ?ai/i;

/** Why a provider's error answer came, from its status and its words. */
export function failureOf(status: number, body: Buffer): AttemptFailure {
  switch (status) {
    case 401:
    case 402:
    case 403:
      return 'auth';
    case 404:
      return 'not_found';
    case 408:
    case 504:
      return 'timeout';
    case 429:
      return 'rate_limited';
    case 413:
      return 'context_window';
    default:
      break;
  }
  if (status >= 500) return 'unavailable';
  const text = body.toString('utf8', 0, 8_192);
  if (CONTEXT_WINDOW.test(text)) return 'context_window';
  return CONTENT_POLICY.test(text) ? 'content_policy' : 'rejected';
}

/** The error event a provider starts a stream with instead of an answer. */
export function failureOfFirstEvent(chunk: Buffer): AttemptFailure | undefined {
  const text = chunk.toString('utf8', 0, Math.min(chunk.length, 2_048));
  if (!/^(event:\s*error\b|data:\s*\{\s*"error"|data:\s*\{\s*"type"\s*:\s*"error")/.test(text)) return undefined;
  if (text.includes('rate_limit')) return 'rate_limited';
  if (/invalid_request|authentication|permission|billing/.test(text)) return 'rejected';
  return 'unavailable';
}

/** True when the same request may do better elsewhere or a moment later. */
export function mayTryAgain(failure: AttemptFailure): boolean {
  return failure === 'rate_limited' || failure === 'unavailable' || failure === 'timeout';
}

/** True when another deployment of the same model may do better. */
export function mayTryElsewhere(failure: AttemptFailure): boolean {
  return mayTryAgain(failure) || failure === 'auth' || failure === 'not_found';
}

/** Seconds or a date, as `Retry-After` has it; also OpenAI's and Azure's `retry-after-ms`. */
export function retryAfterMsOf(
  headers: Readonly<Record<string, string>>,
  nowMs: number = Date.now(),
): number | undefined {
  const exactMs = Number(headers['retry-after-ms']);
  if (headers['retry-after-ms'] !== undefined && Number.isFinite(exactMs) && exactMs >= 0) return exactMs;
  const value = headers['retry-after'];
  if (value === undefined) return undefined;
  const seconds = Number(value);
  if (Number.isFinite(seconds)) return seconds >= 0 ? seconds * 1_000 : undefined;
  const atMs = Date.parse(value);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}
