import type { LonghaulError } from '../contracts/error-codes.ts';

const STATUS: Readonly<Record<number, string>> = {
  400: 'INVALID_ARGUMENT',
  401: 'UNAUTHENTICATED',
  402: 'FAILED_PRECONDITION',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  405: 'UNIMPLEMENTED',
  409: 'ABORTED',
  413: 'INVALID_ARGUMENT',
  415: 'INVALID_ARGUMENT',
  429: 'RESOURCE_EXHAUSTED',
  499: 'CANCELLED',
  500: 'INTERNAL',
  501: 'UNIMPLEMENTED',
  504: 'DEADLINE_EXCEEDED',
};

/** Google's name of an HTTP status. */
export function googleStatus(status: number): string {
  return STATUS[status] ?? (status >= 500 ? 'UNAVAILABLE' : 'INVALID_ARGUMENT');
}

/** An error as Google's APIs write it down; ours stands in its details. */
export function googleErrorBody(error: LonghaulError, requestId: string): object {
  const { code, message, next, doc_url: docUrl } = error.toBody(requestId).error;
  const info = {
    '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
    reason: code,
    domain: 'longhaul',
    metadata: { next, doc_url: docUrl, request_id: requestId },
  };
  return { error: { code: error.status, message, status: googleStatus(error.status), details: [info] } };
}
