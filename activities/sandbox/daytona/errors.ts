import type { DaytonaError } from '@daytonaio/sdk';
import type { ErrorCode } from '../../../contracts/error-codes.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';

const MESSAGE_CHARACTERS = 300;
const RETRY_AFTER_MAX_MS = 10 * 60_000;

/** Answers of the API that tell a limit of the organisation, which has no status of its own. */
const QUOTA = /quota|limit exceeded|exceed(s|ed)? .*(limit|maximum)|maximum allowed|insufficient|depleted/i;
/** Answers for a sandbox that exists and does not run. */
const ASLEEP = /not (running|started)|is (stopped|paused|archived)|no ip address|not in (a )?started state/i;

/** By shape: the SDK may be loaded under two names, with two sets of classes. */
function isDaytonaError(error: unknown): error is DaytonaError {
  return error instanceof Error && /^Daytona\w*Error$/.test(error.name);
}

/** HTTP status of an error of the SDK. */
export function statusOf(error: unknown): number | undefined {
  return isDaytonaError(error) ? error.statusCode : undefined;
}

function codeOf(error: DaytonaError): ErrorCode {
  switch (error.statusCode) {
    case 401:
      return 'sandbox_auth';
    case 402:
      return 'sandbox_quota';
    case 403:
      return QUOTA.test(error.message) ? 'sandbox_quota' : 'sandbox_auth';
    case 404:
    case 410:
      return 'sandbox_not_found';
    case 429:
      return 'sandbox_busy';
    case 400:
    case 422:
      if (ASLEEP.test(error.message)) return 'sandbox_lost';
      return QUOTA.test(error.message) ? 'sandbox_quota' : 'sandbox_invalid';
    // The server's own errors, its conflicts with a change that is going on, deadlines and broken connections.
    default:
      return /InvalidArgument|Validation/.test(error.name) ? 'sandbox_invalid' : 'sandbox_unavailable';
  }
}

function retryAfterMs(error: DaytonaError): number | undefined {
  const headers = error.headers as Record<string, unknown> | undefined;
  const seconds = Number(headers?.['retry-after']);
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds * 1_000, RETRY_AFTER_MAX_MS) : undefined;
}

/** What the SDK threw, as the port's error; `secret` is never part of it. */
export function normalised(error: unknown, what: string, secret: string): unknown {
  if (error instanceof LonghaulError || (error instanceof Error && error.name === 'AbortError')) return error;
  if (!isDaytonaError(error)) {
    // Of node itself: a socket that broke while a file was on its way.
    const isSocket = typeof (error as NodeJS.ErrnoException | undefined)?.syscall === 'string';
    return isSocket ? new LonghaulError('sandbox_unavailable', `${what}: the connection broke`) : error;
  }
  const told = secret === '' ? error.message : error.message.replaceAll(secret, '…');
  const status = error.statusCode === undefined ? '' : ` (${error.statusCode})`;
  const waitMs = retryAfterMs(error);
  return new LonghaulError(
    codeOf(error),
    `${what}: ${told.slice(0, MESSAGE_CHARACTERS)}${status}`,
    waitMs === undefined ? {} : { retryAfterMs: waitMs },
  );
}
