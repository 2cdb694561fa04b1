import type { ContentBlock } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { CallExecutor } from '../../contracts/harnesses.ts';
import { assertNever } from '../../contracts/states.ts';
import { saveHarnessToken } from '../../db/queries/harness-sessions.ts';
import { markDelivered } from '../../db/queries/harness-calls.ts';
import type { CallAnswer } from '../../temporal/tool-calls.ts';
import { requestCall, waitForCall } from '../../temporal/tool-calls.ts';
import type { ActivityDeps } from '../deps.ts';
import type { PermissionAnswer, PermissionRequest, ResumeToken, ToolAnswer, TurnHost } from './port.ts';
import type { EventSink } from './sink.ts';
import type { Watchdog } from './watchdog.ts';

/** Between two looks at whether the attempt is to let go. */
const LOOK_MS = 1_000;

interface HostParts {
  deps: ActivityDeps;
  sessionId: string;
  sink: EventSink;
  watchdog: Watchdog;
  /** Aborted when the attempt is over, however it ends. */
  signal: AbortSignal;
}

/** What a driver may ask of the product while its turn runs. Every call goes to the session's workflow, like those over MCP. */
export function turnHost(parts: HostParts): TurnHost {
  const { deps, sessionId, sink, watchdog } = parts;
  return {
    parkSignal: watchdog.park.signal,
    detachSignal: watchdog.detach.signal,
    async emit(event) {
      watchdog.hear(event);
      await sink.emit(event);
    },
    async permission(request) {
      sink.asked(request.callId);
      return permissionOf(parts, await answerTo(parts, request, 'harness'));
    },
    async callTool(request) {
      return toolAnswerOf(await answerTo(parts, request, 'platform'));
    },
    async checkpoint(token: ResumeToken) {
      await saveHarnessToken(deps.pool, sessionId, token);
    },
  };
}

interface Answered {
  callId: string | undefined;
  answer: CallAnswer;
}

async function answerTo(parts: HostParts, request: PermissionRequest, executor: CallExecutor): Promise<Answered> {
  const { deps, sessionId, watchdog, signal } = parts;
  const { callId: harnessCallId, tool, input } = request;
  try {
    const call = await requestCall(deps, { sessionId, executor, tool, input, harnessCallId }, signal);
    for (;;) {
      const answer = await waitForCall(deps.pool, call, { waitMs: LOOK_MS, signal });
      if (answer.kind !== 'pending' || watchdog.park.signal.aborted) return { callId: call.callId, answer };
    }
  } catch (error) {
    // Nobody takes the call: the model is told, and the turn, if it goes on, goes on.
    if (!(error instanceof LonghaulError) || error.retryable) throw error;
    return { callId: undefined, answer: { kind: 'denied', message: error.message } };
  }
}

async function permissionOf({ deps }: HostParts, { callId, answer }: Answered): Promise<PermissionAnswer> {
  switch (answer.kind) {
    case 'allowed':
      return { decision: 'allow', input: answer.input };
    case 'denied':
      return { decision: 'deny', message: answer.message };
    case 'result': {
      // It was run in an earlier life of the harness; a second time nobody has allowed.
      if (callId !== undefined) await markDelivered(deps.pool, callId);
      const how = answer.isError ? 'failed' : 'was run';
      return { decision: 'deny', message: `This call ${how} already; its result was:\n${textOf(answer.content)}` };
    }
    case 'pending':
      return { decision: 'park' };
    case 'over':
      return { decision: 'deny', message: 'The turn is over.' };
    default:
      return assertNever(answer);
  }
}

function toolAnswerOf({ answer }: Answered): ToolAnswer | { parked: true } {
  switch (answer.kind) {
    case 'result':
      return { content: answer.content, isError: answer.isError };
    case 'denied':
      return failed(answer.message);
    case 'over':
      return failed('The turn is over; this call is not answered any more.');
    case 'pending':
      return { parked: true };
    case 'allowed':
      return failed('This call is not for the harness to run.');
    default:
      return assertNever(answer);
  }
}

const failed = (text: string): ToolAnswer => ({ content: [{ type: 'text', text }], isError: true });

function textOf(content: readonly ContentBlock[]): string {
  return content.flatMap((block) => (block.type === 'text' ? [block.text] : [`[${block.type}]`])).join('\n');
}
