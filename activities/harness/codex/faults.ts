import type { FaultClass, TurnOutcome } from '../port.ts';
import type { CodexError } from './protocol.ts';

type Failed = Extract<TurnOutcome, { kind: 'failed' }>;

const MESSAGE_CHARS = 1_000;

/** By `codexErrorInfo`; what is not here is told by the HTTP status. */
const CLASSES: Record<string, FaultClass> = {
  contextWindowExceeded: 'context',
  sessionBudgetExceeded: 'budget',
  usageLimitExceeded: 'budget',
  rateLimitExceeded: 'rate_limit',
  flexUnavailable: 'overloaded',
  serverOverloaded: 'overloaded',
  policyCapacityUnavailable: 'overloaded',
  internalServerError: 'overloaded',
  modelNotFound: 'bad_request',
  badRequest: 'bad_request',
  unauthorized: 'auth',
  inferenceHookDenied: 'refusal',
  cyberPolicy: 'refusal',
  misalignmentPolicyViolation: 'refusal',
  tooManyDenials: 'refusal',
  sandboxError: 'harness_crash',
};

/** The end of a turn that codex calls failed. */
export function failureOf(error: CodexError | null): Failed {
  const message = messageOf(error);
  const httpStatus = statusOf(error);
  const fault = classOf(error, httpStatus);
  const retryable = fault === 'rate_limit' || fault === 'overloaded' || fault === 'harness_crash';
  return { kind: 'failed', fault, retryable, httpStatus, message };
}

/** The connection to the server, or the server itself, is gone. */
export function crashOf(message: string): Failed {
  return { kind: 'failed', fault: 'harness_crash', retryable: true, httpStatus: null, message };
}

export function statusOf(error: CodexError | null): number | null {
  const info = error?.codexErrorInfo;
  if (typeof info === 'object' && info !== null) {
    for (const detail of Object.values(info)) {
      if (typeof detail?.httpStatusCode === 'number') return detail.httpStatusCode;
    }
  }
  const told = /\bstatus:? (\d{3})\b/.exec(error?.message ?? '');
  return told === null ? null : Number(told[1]);
}

export function messageOf(error: CodexError | null): string {
  return (error?.message ?? 'codex ended the turn without a reason').slice(0, MESSAGE_CHARS);
}

function classOf(error: CodexError | null, httpStatus: number | null): FaultClass {
  const info = error?.codexErrorInfo;
  const told = typeof info === 'string' ? CLASSES[info] : undefined;
  if (told !== undefined) return told;
  const body = error?.message ?? '';
  // Codes of our gateway and of providers, whatever status they come with.
  if (/"(budget_exceeded|key_budget_exceeded|insufficient_quota)"/.test(body)) return 'budget';
  if (/"(context_length_exceeded|request_too_large|conversation_too_long)"/.test(body)) return 'context';
  // Only the body of a 400 is told without its status.
  if (httpStatus === null) return body.startsWith('{') ? 'bad_request' : 'overloaded';
  if (httpStatus === 401 || httpStatus === 403) return 'auth';
  if (httpStatus === 402) return 'budget';
  if (httpStatus === 413) return 'context';
  if (httpStatus === 429) return 'rate_limit';
  return httpStatus >= 400 && httpStatus < 500 && httpStatus !== 408 ? 'bad_request' : 'overloaded';
}
