import type { ErrorBody } from '../contracts/error-codes.ts';

/** An error answer of the API, or no answer at all (`status` 0). */
export class ApiError extends Error {
  readonly status: number;
  /** Stable code of the catalogue; `unreachable` without an answer. */
  readonly code: string;
  /** What to do about it. */
  readonly next: string | undefined;
  readonly requestId: string | undefined;

  constructor(status: number, body: ErrorBody | undefined, fallback: string, cause?: unknown) {
    super(body?.error.message ?? fallback, cause === undefined ? undefined : { cause });
    this.name = 'ApiError';
    this.status = status;
    this.code = body?.error.code ?? (status === 0 ? 'unreachable' : 'unknown');
    this.next = body?.error.next;
    this.requestId = body?.request_id;
  }
}
