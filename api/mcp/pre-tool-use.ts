import { setTimeout as delay } from 'node:timers/promises';
import canonicalize from 'canonicalize';
import type { AgentDefinition } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { PreToolUse, PreToolUseDecision } from '../../contracts/harness-hooks.ts';
import type { CallExecutor } from '../../contracts/harnesses.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { mcpPlaceOf, OWN_MCP_SERVER, splitMcpToolName } from '../../contracts/mcp.ts';
import { assertNever } from '../../contracts/states.ts';
import { readCallStatus } from '../../db/queries/harness-calls.ts';
import type { AskedCall } from '../../temporal/tool-calls.ts';
import { requestCall, waitForCall } from '../../temporal/tool-calls.ts';
import type { Services } from '../services.ts';
import type { HarnessCaller } from './session-token.ts';

const LOOK_MS = 50;

type Verdict =
  | { decision: 'allow'; input?: Record<string, unknown> }
  | { decision: 'deny'; reason: string }
  /** A person is asked: nothing may hold the harness meanwhile. */
  | { decision: 'defer' };

/**
 * May the harness use this tool? The session's workflow plans the call like any other; the same `tool_use_id` is the same
 * call, however often it is asked. What cannot be decided in time is denied.
 */
export async function judgeToolUse(
  services: Services,
  caller: HarnessCaller,
  asked: PreToolUse,
  signal: AbortSignal,
): Promise<PreToolUseDecision> {
  // Not AbortSignal.any with a timeout, which may be garbage while it is waited for.
  const over = new AbortController();
  const end = (): void => over.abort();
  const timer = setTimeout(end, LIMITS.hookDecisionMs);
  signal.addEventListener('abort', end, { once: true });
  const until = over.signal;
  try {
    const { executor, tool } = placeOf(caller.agent, asked.tool_name);
    const draft = { sessionId: caller.sessionId, executor, tool, input: asked.tool_input };
    const call = await requestCall(
      { pool: services.pool, temporal: services.temporal.client },
      { ...draft, harnessCallId: asked.tool_use_id },
      until,
    );
    const verdict =
      executor === 'platform'
        ? await plannedVerdict(services, call, until)
        : await grantedVerdict(services, call, until);
    return rendered(verdict, asked);
  } catch (error) {
    if (error instanceof LonghaulError && !error.retryable && error.status < 500) {
      return rendered({ decision: 'deny', reason: error.message }, asked);
    }
    if (until.aborted) {
      return rendered({ decision: 'deny', reason: 'Nobody could decide about this call in time; try again.' }, asked);
    }
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
  }
}

/** Tools of ours come to the hook by the names that our MCP endpoints give them; they run with us, the others in the harness. */
function placeOf(agent: AgentDefinition, name: string): { executor: CallExecutor; tool: string } {
  const place = splitMcpToolName(name);
  if (place?.server === OWN_MCP_SERVER) return { executor: 'platform', tool: place.tool };
  return { executor: mcpPlaceOf(agent, name) === undefined ? 'harness' : 'platform', tool: name };
}

/** A call that the platform runs: the session runs it as soon as it may, the harness then gets the result over MCP. */
async function plannedVerdict({ pool }: Services, call: AskedCall, signal: AbortSignal): Promise<Verdict> {
  for (;;) {
    const { state, result, turnRuns } = await readCallStatus(pool, call.callId);
    switch (state) {
      case 'allowed':
      case 'started':
      case 'succeeded':
      case 'failed':
        return { decision: 'allow' };
      case 'waiting':
      case 'unknown':
        return { decision: 'defer' };
      case 'denied': {
        const text = (result?.content ?? []).flatMap((block) => (block.type === 'text' ? [block.text] : []));
        return { decision: 'deny', reason: text.join('\n') };
      }
      case 'proposed':
      case null:
        if (!turnRuns) return { decision: 'deny', reason: 'The turn is over.' };
        await delay(LOOK_MS, undefined, { signal });
        break;
      default:
        return assertNever(state);
    }
  }
}

/** A call that the harness runs itself: it is told to only when the ledger says that it has begun. */
async function grantedVerdict({ pool }: Services, call: AskedCall, signal: AbortSignal): Promise<Verdict> {
  for (;;) {
    const answer = await waitForCall(pool, call, { waitMs: LOOK_MS, signal });
    switch (answer.kind) {
      case 'allowed':
        return { decision: 'allow', input: answer.input };
      case 'denied':
        return { decision: 'deny', reason: answer.message };
      case 'result':
        // It ran in an earlier life of the harness, which did not keep the result: it must not run again.
        return { decision: 'deny', reason: resultText(answer.content) };
      case 'over':
        return { decision: 'deny', reason: 'The turn is over.' };
      case 'pending':
        if (answer.waitsForPerson) return { decision: 'defer' };
        break;
      default:
        return assertNever(answer);
    }
  }
}

function resultText(content: readonly { type: string; text?: string }[]): string {
  const text = content.flatMap((block) => (block.text === undefined ? [] : [block.text])).join('\n');
  return `This call has run already; its result: ${text === '' ? '(none)' : text}`;
}

function rendered(verdict: Verdict, asked: PreToolUse): PreToolUseDecision {
  const { decision } = verdict;
  const reason = 'reason' in verdict ? { permissionDecisionReason: verdict.reason } : {};
  const edited =
    'input' in verdict && canonicalize(verdict.input) !== canonicalize(asked.tool_input)
      ? { updatedInput: verdict.input }
      : {};
  return { hookSpecificOutput: { hookEventName: 'PreToolUse', permissionDecision: decision, ...reason, ...edited } };
}
