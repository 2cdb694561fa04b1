import type { FaultClass, TurnOutcome } from '../port.ts';
import type { MessageInfo, OpenError } from './wire.ts';

const MAX_MESSAGE_CHARS = 1_000;

type Failure = Extract<TurnOutcome, { kind: 'failed' }>;

/** How a turn ended, by its last message. */
export function outcomeOf(info: MessageInfo): TurnOutcome {
  if (info.error !== undefined) return errorOutcome(info.error);
  switch (info.finish) {
    case 'stop':
      return { kind: 'completed', stopReason: 'end_turn' };
    case 'length':
      return { kind: 'completed', stopReason: 'max_tokens' };
    case 'content-filter':
      return { kind: 'completed', stopReason: 'refusal' };
    default:
      return failed('overloaded', null, `the model's answer did not end (${info.finish ?? 'no reason'})`, true);
  }
}

function errorOutcome({ name, data }: OpenError): TurnOutcome {
  const message = data?.message ?? name;
  const httpStatus = data?.statusCode ?? null;
  switch (name) {
    case 'MessageAbortedError':
      return { kind: 'cancelled' };
    case 'MessageOutputLengthError':
      return { kind: 'completed', stopReason: 'max_tokens' };
    case 'ContextOverflowError':
      return failed('context', httpStatus, message, false);
    case 'ProviderAuthError':
      return failed('auth', httpStatus, message, false);
    case 'APIError': {
      const fault = faultOf(httpStatus, `${message} ${data?.responseBody ?? ''}`);
      return failed(fault, httpStatus, message, isPassing(fault));
    }
    default:
      // What came was no answer of a model: half a stream, or not even that.
      return failed('overloaded', httpStatus, `${name}: ${message}`, true);
  }
}

/** The class of a refusal of the gateway, or of the provider behind it. */
export function faultOf(httpStatus: number | null, text: string): FaultClass {
  if (httpStatus === 402 || /\bbudget_exceeded\b/.test(text)) return 'budget';
  if (/context[ _-]?(length|window|overflow)|prompt is too long|maximum context/i.test(text)) return 'context';
  switch (httpStatus) {
    case null:
      return 'overloaded';
    case 401:
    case 403:
      return 'auth';
    case 408:
    case 429:
      return httpStatus === 429 ? 'rate_limit' : 'overloaded';
    default:
      return httpStatus >= 500 ? 'overloaded' : 'bad_request';
  }
}

function isPassing(fault: FaultClass): boolean {
  return fault === 'rate_limit' || fault === 'overloaded';
}

export function failed(fault: FaultClass, httpStatus: number | null, message: string, retryable: boolean): Failure {
  return { kind: 'failed', fault, retryable, httpStatus, message: message.slice(0, MAX_MESSAGE_CHARS) };
}

/** The harness is gone; its session is on disk. */
export function crashed(message: string): Failure {
  return failed('harness_crash', null, message, true);
}
