/** Zod-free. The one catalogue of errors: code → HTTP status, Anthropic-style type, retryable, and what to do next. */
interface ErrorEntry {
  status: number;
  type:
    | 'invalid_request_error'
    | 'authentication_error'
    | 'billing_error'
    | 'permission_error'
    | 'not_found_error'
    | 'conflict_error'
    | 'gone_error'
    | 'request_too_large'
    | 'rate_limit_error'
    | 'api_error'
    | 'overloaded_error'
    | 'timeout_error';
  retryable: boolean;
  next: string;
}

export const ERROR_CATALOGUE = {
  invalid_request: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Correct the named field and send the request again.',
  },
  invalid_json: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Send a JSON object as the body.',
  },
  invalid_path: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Check the percent-escapes of the URL.',
  },
  unsupported_media_type: {
    status: 415,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Send content-type: application/json.',
  },
  missing_api_key: {
    status: 401,
    type: 'authentication_error',
    retryable: false,
    next: 'Send Authorization: Bearer <key> or x-api-key.',
  },
  invalid_api_key: {
    status: 401,
    type: 'authentication_error',
    retryable: false,
    next: 'Use a key that exists and is not revoked or expired.',
  },
  forbidden: { status: 403, type: 'permission_error', retryable: false, next: 'Use a key with the needed scope.' },
  model_not_allowed: {
    status: 403,
    type: 'permission_error',
    retryable: false,
    next: 'Use a model this key may call.',
  },
  budget_exceeded: {
    status: 402,
    type: 'billing_error',
    retryable: false,
    next: 'Raise the budget, then ask again; a session goes on with the next message.',
  },
  model_not_budgetable: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Set a price for the model or remove the budget.',
  },
  budget_create_only: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Give a budget when the session is created.',
  },
  budget_not_raised: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'A budget may only be raised above what is already spent.',
  },
  not_found: {
    status: 404,
    type: 'not_found_error',
    retryable: false,
    next: 'Check the id; list the resource to see what exists.',
  },
  route_not_found: {
    status: 404,
    type: 'not_found_error',
    retryable: false,
    next: 'See /openapi.json for the routes.',
  },
  method_not_allowed: {
    status: 405,
    type: 'invalid_request_error',
    retryable: false,
    next: 'See /openapi.json for the methods of this path.',
  },
  version_conflict: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Read the resource again and send its current version.',
  },
  already_decided: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Read the approval: it was decided otherwise already.',
  },
  idempotency_conflict: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Use a new Idempotency-Key for a different body.',
  },
  idempotency_in_progress: {
    status: 409,
    type: 'conflict_error',
    retryable: true,
    next: 'The first request with this key is still running; retry shortly.',
  },
  session_terminated: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Create a new session: a terminated one is never resumed.',
  },
  session_archived: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Create a new session: an archived one takes no events.',
  },
  session_busy: {
    status: 409,
    type: 'conflict_error',
    retryable: true,
    next: 'Interrupt the session or wait until it is idle.',
  },
  archived: { status: 409, type: 'conflict_error', retryable: false, next: 'Use a resource that is not archived.' },
  in_use: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Archive it instead: other resources still refer to it.',
  },
  already_exists: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Use another name, or update the one that has it.',
  },
  limit_reached: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Archive or delete what is not needed any more.',
  },
  credential_unavailable: {
    status: 503,
    type: 'api_error',
    retryable: true,
    next: 'Retry; if it stays, check the vault back end the message names, and the master keys of the broker.',
  },
  credential_revoked: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Use a credential that is neither archived nor deleted.',
  },
  credential_needs_reauth: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Authorize again and update the credential with the new tokens.',
  },
  queue_full: {
    status: 429,
    type: 'rate_limit_error',
    retryable: true,
    next: 'Wait until the session has worked off its queue.',
  },
  no_pending_action: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'The tool call is not waiting for an answer; list the session events.',
  },
  approval_expired: {
    status: 410,
    type: 'gone_error',
    retryable: false,
    next: 'The approval has expired; the agent was told. Ask it to try again.',
  },
  request_too_large: { status: 413, type: 'request_too_large', retryable: false, next: 'Send a smaller body.' },
  rate_limited: {
    status: 429,
    type: 'rate_limit_error',
    retryable: true,
    next: 'Retry after the time in the Retry-After header.',
  },
  too_many_parallel_calls: {
    status: 429,
    type: 'rate_limit_error',
    retryable: true,
    next: 'Wait for a running call of this key to end.',
  },
  model_not_found: { status: 404, type: 'not_found_error', retryable: false, next: 'GET /v1/models lists the models.' },
  provider_unavailable: {
    status: 529,
    type: 'overloaded_error',
    retryable: true,
    next: 'The model provider is down or overloaded; retry later.',
  },
  provider_rate_limited: {
    status: 429,
    type: 'rate_limit_error',
    retryable: true,
    next: 'The model provider limits the rate; retry later.',
  },
  provider_rejected: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'The model provider refused the request; read its message.',
  },
  conversation_too_long: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Send the next message with a model of a larger context, or go on in a new session.',
  },
  provider_auth: {
    status: 502,
    type: 'api_error',
    retryable: false,
    next: 'Ask the operator to check the provider key of the gateway.',
  },
  provider_timeout: {
    status: 504,
    type: 'timeout_error',
    retryable: true,
    next: 'The model provider did not answer in time; retry.',
  },
  sandbox_unavailable: {
    status: 503,
    type: 'api_error',
    retryable: true,
    next: 'Run `longhaul doctor` to see what the sandbox needs.',
  },
  sandbox_lost: {
    status: 500,
    type: 'api_error',
    retryable: false,
    next: 'The sandbox is gone; its running command has an unknown outcome.',
  },
  sandbox_not_found: {
    status: 404,
    type: 'not_found_error',
    retryable: false,
    next: 'The sandbox was destroyed; a new one is made on demand.',
  },
  range_not_satisfiable: {
    status: 416,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Ask for a range inside the file.',
  },
  file_quota: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'Delete files that are not needed, then ask again.',
  },
  file_too_large: {
    status: 413,
    type: 'request_too_large',
    retryable: false,
    next: 'Send a smaller file; the message names the limit.',
  },
  sandbox_busy: {
    status: 503,
    type: 'overloaded_error',
    retryable: true,
    next: 'The sandbox provider limits requests; retry later.',
  },
  sandbox_quota: {
    status: 503,
    type: 'overloaded_error',
    retryable: false,
    next: 'Raise the quota at the sandbox provider, or end sandboxes that are not needed.',
  },
  sandbox_auth: {
    status: 503,
    type: 'api_error',
    retryable: false,
    next: 'Ask the operator to check the credentials of the sandbox provider.',
  },
  sandbox_unsupported: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Choose a sandbox provider that can do this; `capabilities` tells which.',
  },
  sandbox_invalid: {
    status: 400,
    type: 'invalid_request_error',
    retryable: false,
    next: 'Correct the argument the message names.',
  },
  database_unavailable: {
    status: 503,
    type: 'api_error',
    retryable: true,
    next: 'Retry: the database is restarting or unreachable.',
  },
  temporal_unavailable: {
    status: 503,
    type: 'api_error',
    retryable: true,
    next: 'Retry: the Temporal server is restarting or unreachable.',
  },
  insecure_bind: {
    status: 500,
    type: 'api_error',
    retryable: false,
    next: 'Bind loopback, or create an API key and set LONGHAUL_ALLOW_PUBLIC=1.',
  },
  setup_required: {
    status: 500,
    type: 'api_error',
    retryable: false,
    next: 'Run `longhaul setup`, then `longhaul doctor`.',
  },
  cancelled: {
    status: 409,
    type: 'conflict_error',
    retryable: false,
    next: 'The model call was cancelled; ask under a new Idempotency-Key.',
  },
  internal: { status: 500, type: 'api_error', retryable: true, next: 'Retry; if it stays, report the request id.' },
} as const satisfies Record<string, ErrorEntry>;

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
