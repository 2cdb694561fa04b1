import type { FaultClass, TurnOutcome } from '../port.ts';
import type { ResultLine } from './protocol.ts';

type Failed = Extract<TurnOutcome, { kind: 'failed' }>;

const MESSAGE_CHARS = 1_000;
const CONTEXT = /prompt is too long|context (?:length|window|limit)|too many tokens/i;
const BUDGET = /budget|credit balance|insufficient_quota/i;
const RETRYABLE: ReadonlySet<FaultClass> = new Set(['rate_limit', 'overloaded', 'harness_crash']);

/** How the line that ends a turn ends it. It says `success` for calls of the model that failed, too. */
export function outcomeOf(line: ResultLine): TurnOutcome {
  const { terminal_reason: why, stop_reason: stopReason } = line;
  if (why === 'tool_deferred' || stopReason === 'tool_deferred') return { kind: 'parked' };
  if (!line.is_error) {
    const told = stopReason === 'max_tokens' || stopReason === 'refusal' ? stopReason : 'end_turn';
    return { kind: 'completed', stopReason: told };
  }
  const message = (line.result ?? line.errors?.join('\n') ?? '').slice(0, MESSAGE_CHARS);
  const httpStatus = line.api_error_status ?? null;
  const fault = classOf(line, httpStatus, message);
  return { kind: 'failed', fault, retryable: RETRYABLE.has(fault), httpStatus, message };
}

/** The process is gone, and nobody told it to go. */
export function crashOf(message: string): Failed {
  return {
    kind: 'failed',
    fault: 'harness_crash',
    retryable: true,
    httpStatus: null,
    message: message.slice(0, MESSAGE_CHARS),
  };
}

function classOf(line: ResultLine, httpStatus: number | null, message: string): FaultClass {
  if (line.subtype === 'error_max_turns' || line.subtype === 'error_max_budget_usd') return 'budget';
  if (CONTEXT.test(message) || httpStatus === 413) return 'context';
  if (httpStatus === 402 || (httpStatus !== null && httpStatus < 500 && BUDGET.test(message))) return 'budget';
  if (httpStatus === 401 || httpStatus === 403) return 'auth';
  if (httpStatus === 429) return 'rate_limit';
  if (httpStatus !== null && httpStatus >= 400 && httpStatus < 500 && httpStatus !== 408) return 'bad_request';
  return line.terminal_reason === 'api_error' || httpStatus !== null ? 'overloaded' : 'harness_crash';
}
