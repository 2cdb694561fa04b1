import { ERROR_CATALOGUE } from './error-catalogue.ts';

export { ERROR_CATALOGUE };

export type ErrorCode = keyof typeof ERROR_CATALOGUE;

/** The one error type. `field` names the offending input; `details` must hold nothing secret. */
export class LonghaulError extends Error {
  readonly code: ErrorCode;
  readonly field: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { field?: string; cause?: unknown; retryAfterMs?: number } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'LonghaulError';
    this.code = code;
    this.field = options.field;
    this.retryAfterMs = options.retryAfterMs;
  }

  get status(): number {
    return ERROR_CATALOGUE[this.code].status;
  }

  get retryable(): boolean {
    return ERROR_CATALOGUE[this.code].retryable;
  }

  /** The JSON body every API error has. */
  toBody(requestId: string): ErrorBody {
    const entry = ERROR_CATALOGUE[this.code];
    return {
      type: 'error',
      error: {
        type: entry.type,
        message: this.field === undefined ? this.message : `${this.field}: ${this.message}`,
        code: this.code,
        ...(this.field === undefined ? {} : { field: this.field }),
        next: entry.next,
        doc_url: `/docs/errors#${this.code}`,
        // Where the Anthropic SDKs look for the code.
        details: { error_code: this.code },
      },
      request_id: requestId,
    };
  }
}

export interface ErrorBody {
  type: 'error';
  error: {
    type: string;
    message: string;
    code: string;
    field?: string;
    next: string;
    doc_url: string;
    details: { error_code: string };
  };
  request_id: string;
}
