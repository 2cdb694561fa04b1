import { STATUS_CODES } from 'node:http';
import type { ErrorCode } from '../../../contracts/error-codes.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';

const MESSAGE_CHARACTERS = 300;
const RETRY_AFTER_MAX_MS = 10 * 60_000;

interface ApiFailure {
  code: number;
  body: unknown;
  headers: Record<string, string>;
}

/** By shape: an answer of the API server that is no success. */
function failureOf(error: unknown): ApiFailure | null {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'number') return null;
  const { code, body, headers } = error as Error & Partial<ApiFailure>;
  return { code: code ?? 0, body, headers: headers ?? {} };
}

/** HTTP status of the API server's answer. */
export function statusOf(error: unknown): number | undefined {
  return failureOf(error)?.code ?? upgradeStatus(error);
}

/** A WebSocket that the server refused; the library tells the status in words only. */
function upgradeStatus(error: unknown): number | undefined {
  const message = (error as { message?: unknown } | null)?.message;
  const [, status] = /Unexpected server response: (\d{3})/.exec(typeof message === 'string' ? message : '') ?? [];
  return status === undefined ? undefined : Number(status);
}

/** The server's own sentence, from its Status object. */
function sentenceOf(body: unknown): string {
  let parsed = body;
  try {
    if (typeof body === 'string') parsed = JSON.parse(body);
  } catch {
    return String(body);
  }
  const message = (parsed as { message?: unknown } | null | undefined)?.message;
  return typeof message === 'string' ? message : '';
}

function codeOf(status: number, sentence: string): ErrorCode {
  switch (status) {
    case 401:
      return 'sandbox_auth';
    case 403:
      return /exceeded quota|quota/.test(sentence) ? 'sandbox_quota' : 'sandbox_auth';
    case 404:
    case 410:
      return 'sandbox_not_found';
    case 400:
    case 405:
    case 415:
    case 422:
      return 'sandbox_invalid';
    case 429:
      return 'sandbox_busy';
    // Conflicts are with another change at the same moment; the rest is the server's own trouble.
    default:
      return 'sandbox_unavailable';
  }
}

/** What the client threw, as the port's error. */
export function normalised(error: unknown, what: string): unknown {
  if (error instanceof LonghaulError || (error instanceof Error && error.name === 'AbortError')) return error;
  const status = statusOf(error);
  const failure = failureOf(error);
  const sentence = (failure === null ? '' : sentenceOf(failure.body)) || (STATUS_CODES[status ?? 0] ?? '');
  if (status !== undefined) {
    const told = `kubernetes: ${what}: ${sentence.slice(0, MESSAGE_CHARACTERS)} (${status})`;
    const seconds = Number(failure?.headers['retry-after']);
    const isTold = Number.isFinite(seconds) && seconds > 0;
    const options = isTold ? { retryAfterMs: Math.min(seconds * 1_000, RETRY_AFTER_MAX_MS) } : {};
    return new LonghaulError(codeOf(status, sentence), told, options);
  }
  if (!isConnection(error)) return error;
  return new LonghaulError('sandbox_unavailable', `kubernetes: ${what}: the API server cannot be reached`, {
    cause: error,
  });
}

/** Of node, undici or the WebSocket library: nobody answered, or the connection broke. */
function isConnection(error: unknown): boolean {
  const { code, name, message, type, cause } = (error ?? {}) as Record<string, unknown>;
  if (name === 'TimeoutError' || type === 'error') return true;
  if (typeof code === 'string' && /^(E[A-Z]+|UND_ERR_\w+)$/.test(code)) return true;
  if (message === 'fetch failed' || message === 'terminated') return true;
  return cause !== undefined && cause !== null && isConnection(cause);
}
