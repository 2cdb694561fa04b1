import { ERROR_CATALOGUE, type LonghaulError } from '../contracts/error-codes.ts';
import { assertNever } from '../contracts/states.ts';

/** A wire protocol of model calls. */
export type Protocol = 'messages' | 'chat' | 'responses';

/** What a provider said about an error, kept beside our own code for clients that know the provider's words. */
interface ProviderWords {
  type?: string;
  code?: string;
}

/** The error to send, in our catalogue's words, with what the provider called it. */
export interface ProtocolError {
  error: LonghaulError;
  provider?: ProviderWords;
}

/** The body of an error answer in the protocol's own shape, with our code in it. */
export function errorBody(protocol: Protocol, { error, provider }: ProtocolError, requestId: string): object {
  const body = error.toBody(requestId);
  const words = {
    ...(provider?.type === undefined ? {} : { provider_type: provider.type }),
    ...(provider?.code === undefined ? {} : { provider_code: provider.code }),
  };
  switch (protocol) {
    case 'messages':
      return { ...body, error: { ...body.error, ...words } };
    case 'chat':
    case 'responses':
      return { error: { param: error.field ?? null, ...body.error, ...words }, request_id: requestId };
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
    'x-should-retry': String(ERROR_CATALOGUE[error.code].retryable),
    ...(retryAfterMs === undefined ? {} : { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) }),
  };
}
