import { ERROR_CATALOGUE, type LonghaulError } from '../contracts/error-codes.ts';
import { assertNever } from '../contracts/states.ts';
import { googleErrorBody } from './google-errors.ts';

/** Our id of the request, beside the provider's own `request-id`. */
export const REQUEST_ID_HEADER = 'x-longhaul-request-id';
/** Our code of a failure: the body may be the provider's own, in its own words. */
const ERROR_CODE_HEADER = 'x-longhaul-error';

/** A wire protocol of model calls. */
export type Protocol = 'messages' | 'chat' | 'responses' | 'gemini';

/** A provider's own error answer, to be given to the caller as it is. */
interface OriginalAnswer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/** A failure in our catalogue's words; `original` when the provider's own answer may be shown. */
export interface ProtocolError {
  error: LonghaulError;
  original?: OriginalAnswer;
}

/** The body of an error answer in the protocol's own shape, with our code in it. */
export function errorBody(protocol: Protocol, { error }: ProtocolError, requestId: string): object {
  const body = error.toBody(requestId);
  switch (protocol) {
    case 'messages':
      return body;
    case 'chat':
    case 'responses':
      return { error: { param: error.field ?? null, ...body.error }, request_id: requestId };
    case 'gemini':
      return googleErrorBody(error, requestId);
    default:
      return assertNever(protocol);
  }
}

/** The error as a frame of a stream that has begun. */
export function errorFrame(protocol: Protocol, failure: ProtocolError, requestId: string): string {
  switch (protocol) {
    case 'messages':
      return `event: error\ndata: ${JSON.stringify(errorBody(protocol, failure, requestId))}\n\n`;
    case 'chat':
    case 'gemini':
      return `data: ${JSON.stringify(errorBody(protocol, failure, requestId))}\n\n`;
    case 'responses': {
      const { error } = failure.error.toBody(requestId);
      return `event: error\ndata: ${JSON.stringify({ ...error, type: 'error', param: null, error })}\n\n`;
    }
    default:
      return assertNever(protocol);
  }
}

/** Headers of an error answer; `x-should-retry` is what the official SDKs obey before they look at the status. */
export function errorHeaders(error: LonghaulError, requestId: string): Record<string, string> {
  const retryAfterMs = error.retryAfterMs;
  return {
    'content-type': 'application/json; charset=utf-8',
    'request-id': requestId,
    [REQUEST_ID_HEADER]: requestId,
    [ERROR_CODE_HEADER]: error.code,
    'x-should-retry': String(ERROR_CATALOGUE[error.code].retryable),
    ...(retryAfterMs === undefined ? {} : { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) }),
  };
}

/** Headers of a provider's own error answer. */
export function originalHeaders(error: LonghaulError, original: OriginalAnswer, requestId: string) {
  return { ...original.headers, [REQUEST_ID_HEADER]: requestId, [ERROR_CODE_HEADER]: error.code };
}
