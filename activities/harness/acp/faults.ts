import { RequestError } from '@agentclientprotocol/sdk';
import type { FaultClass, TurnOutcome } from '../port.ts';
import { AgentEnded } from './connection.ts';

type Failed = Extract<TurnOutcome, { kind: 'failed' }>;

const MESSAGE_CHARS = 1_000;
const CONTEXT = /context (?:length|window)|maximum context|prompt is too long|too many tokens/i;
const BUDGET = /budget|insufficient_quota|credit balance/i;
/** What agents write when a call of the model failed and they end the turn as if it had not. */
const ERROR_TEXT = /^\W*(?:api )?error\b.{0,400}?\b([45]\d\d)\b/is;
const STATUS = /(?:status(?: code)?|http|error|code)\W{0,4}([45]\d\d)\b|^\W*([45]\d\d)\b/i;

/** A prompt that was answered with an error, or whose agent ended. */
export function faultOf(error: unknown): Failed {
  if (error instanceof AgentEnded) {
    return failed('harness_crash', true, null, `the agent ${error.message}`);
  }
  if (!(error instanceof RequestError)) {
    return failed('harness_crash', true, null, error instanceof Error ? error.message : 'unknown');
  }
  const details = `${error.message} ${JSON.stringify(error.data ?? '')}`;
  const httpStatus = statusIn(error);
  const { details: more } = (error.data ?? {}) as { details?: unknown };
  const message = typeof more === 'string' ? `${error.message}: ${more}` : error.message;
  return failed(...classOf(httpStatus, details), httpStatus, message);
}

/** The error of an answer that claims to be a success; undefined when it is one. */
export function faultInText(text: string): Failed | undefined {
  const status = ERROR_TEXT.exec(text)?.[1];
  if (status === undefined) return undefined;
  const httpStatus = Number(status);
  return failed(...classOf(httpStatus, text), httpStatus, text);
}

/** In one of the places where agents put it, or at the beginning of what they say of it. */
function statusIn(error: RequestError): number | null {
  const data = (typeof error.data === 'object' && error.data !== null ? error.data : {}) as Record<string, unknown>;
  const given = [error.code, data['httpStatus'], data['status'], data['statusCode'], data['code']].map(Number);
  const found = given.find((status) => status >= 400 && status <= 599);
  if (found !== undefined) return found;
  const texts = [error.message, error.data, ...Object.values(data)].filter((text) => typeof text === 'string');
  const match = texts.map((text) => STATUS.exec(text)).find((each) => each !== null);
  return match === undefined ? null : Number(match[1] ?? match[2]);
}

function classOf(httpStatus: number | null, details: string): [FaultClass, boolean] {
  if (CONTEXT.test(details) || httpStatus === 413) return ['context', false];
  if (BUDGET.test(details) || httpStatus === 402) return ['budget', false];
  if (httpStatus === 401 || httpStatus === 403) return ['auth', false];
  if (httpStatus === 429) return ['rate_limit', true];
  if (httpStatus !== null && httpStatus >= 400 && httpStatus < 500) return ['bad_request', false];
  return ['overloaded', true];
}

function failed(fault: FaultClass, retryable: boolean, httpStatus: number | null, message: string): Failed {
  return { kind: 'failed', fault, retryable, httpStatus, message: message.slice(0, MESSAGE_CHARS) };
}
