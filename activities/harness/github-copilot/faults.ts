import type { FaultClass, TurnOutcome } from '../port.ts';
import type { CopilotError } from './sdk.ts';

type Failed = Extract<TurnOutcome, { kind: 'failed' }>;

const MESSAGE_CHARS = 1_000;

/** By `errorType`, where that says more than the HTTP status. */
const CLASSES: Record<string, FaultClass> = {
  authentication: 'auth',
  authorization: 'auth',
  quota: 'budget',
  rate_limit: 'rate_limit',
  context_limit: 'context',
};

/** The end of a turn in which the last thing that happened was an error. */
export function failureOf(error: CopilotError): Failed {
  const httpStatus = statusOf(error);
  const fault = classOf(error, httpStatus);
  const retryable = fault === 'rate_limit' || fault === 'overloaded';
  return { kind: 'failed', fault, retryable, httpStatus, message: error.message.slice(0, MESSAGE_CHARS) };
}

export function crashOf(message: string): Failed {
  return { kind: 'failed', fault: 'harness_crash', retryable: true, httpStatus: null, message };
}

function statusOf({ statusCode, message }: CopilotError): number | null {
  if (statusCode !== undefined) return statusCode;
  const told = /\b(?:status(?: code)?:? |HTTP )?([45]\d\d)\b/.exec(message);
  return told === null ? null : Number(told[1]);
}

function classOf({ errorType, message }: CopilotError, httpStatus: number | null): FaultClass {
  if (message.includes('budget_exceeded') || httpStatus === 402) return 'budget';
  const told = CLASSES[errorType];
  if (told !== undefined) return told;
  if (httpStatus === null) return 'overloaded';
  if (httpStatus === 401 || httpStatus === 403) return 'auth';
  if (httpStatus === 413) return 'context';
  if (httpStatus === 429) return 'rate_limit';
  return httpStatus >= 400 && httpStatus < 500 && httpStatus !== 408 ? 'bad_request' : 'overloaded';
}
