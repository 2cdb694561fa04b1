import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from '@temporalio/client';
import { WorkflowNotFoundError, WorkflowUpdateFailedError } from '@temporalio/client';
import type { ContentBlock } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';
import { assertNever } from '../contracts/states.ts';
import { storable } from '../contracts/storable.ts';
import type { Pool } from '../db/pool.ts';
import { withTransaction } from '../db/pool.ts';
import type { HarnessCallDraft, HarnessCallStatus } from '../db/queries/harness-calls.ts';
import { putHarnessCall, readCallStatus } from '../db/queries/harness-calls.ts';
import { startHarnessEffect } from '../db/queries/harness-grants.ts';
import { lockSession } from '../db/queries/session-status.ts';
import { sessionWorkflowId } from '../workflows/ids.ts';
import { toolCall } from '../workflows/messages.ts';

/** A call under way, as its asker knows it. */
export interface AskedCall {
  callId: string;
  sessionId: string;
  /** The life of the harness that asked: an answer is for nobody when the harness has begun another one. */
  epoch: number;
}

export type CallAnswer =
  /** `harness` calls: the ledger says that it has begun; run it with these arguments. */
  | { kind: 'allowed'; input: Record<string, unknown> }
  | { kind: 'denied'; message: string }
  | { kind: 'result'; content: ContentBlock[]; isError: boolean }
  /** Nobody needs an answer any more: the turn is over, or another life of the harness has asked again. */
  | { kind: 'over' }
  /** Not decided, or not ended, within the time; ask again. */
  | { kind: 'pending'; waitsForPerson: boolean };

const CALL_MS = 10_000;
const RETRY_MS = 500;

interface AskDeps {
  pool: Pool;
  temporal: Client;
}

/**
 * Hands a tool call of a harness to its session: the row first, then the workflow, which plans it like any tool call. Tried
 * until the workflow has it or `signal` is aborted. Throws `no_turn_running`, and `limit_reached` for what is too large or too
 * much.
 */
export async function requestCall(deps: AskDeps, draft: HarnessCallDraft, signal: AbortSignal): Promise<AskedCall> {
  requireSize(draft);
  const call = await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, draft.sessionId);
    const { tool, input, harnessCallId } = draft;
    const said = { tool: storable(tool), input: storable(input), harnessCallId: storable(harnessCallId) };
    return putHarnessCall(tx, { ...draft, ...said });
  });
  const handle = deps.temporal.workflow.getHandle(sessionWorkflowId(draft.sessionId));
  for (;;) {
    try {
      // Its handler answers at once; `startUpdate` would not tell that the workflow refused.
      await deps.temporal.withDeadline(Date.now() + CALL_MS, () =>
        handle.executeUpdate(toolCall, { args: [{ callId: call.id }], updateId: `${call.id}/${call.epoch}` }),
      );
      return { callId: call.id, sessionId: draft.sessionId, epoch: call.epoch };
    } catch (error) {
      if (error instanceof WorkflowUpdateFailedError || error instanceof WorkflowNotFoundError) {
        throw new LonghaulError('no_turn_running', `no turn of session ${draft.sessionId} takes tool calls`, {
          cause: error,
        });
      }
    }
    await delay(RETRY_MS, undefined, { signal });
  }
}

/** Calls come over HTTP, which is limited, and from drivers, whose harness an agent may have in its hands. */
function requireSize({ tool, input, harnessCallId = '' }: HarnessCallDraft): void {
  const { nameChars, mcpMessageBytes } = LIMITS;
  if (tool.length > nameChars || harnessCallId.length > nameChars) {
    throw new LonghaulError('limit_reached', `name and id of a tool call have at most ${nameChars} characters`);
  }
  if (Buffer.byteLength(JSON.stringify(input)) > mcpMessageBytes) {
    throw new LonghaulError('limit_reached', `the input of a tool call has at most ${mcpMessageBytes} bytes`);
  }
}

const FIRST_LOOK_MS = 20;
const SLOWEST_LOOK_MS = 400;

/**
 * Waits at most `waitMs` for what becomes of a call. `allowed` means that this very answer lets it begin: the ledger has it
 * as started, so the harness must be told.
 */
export async function waitForCall(
  pool: Pool,
  call: AskedCall,
  { waitMs, signal }: { waitMs: number; signal: AbortSignal },
): Promise<CallAnswer> {
  const deadlineMs = Date.now() + waitMs;
  for (let everyMs = FIRST_LOOK_MS; ; everyMs = Math.min(everyMs * 2, SLOWEST_LOOK_MS)) {
    const status = await readCallStatus(pool, call.callId);
    if (status.epoch !== call.epoch || status.currentEpoch !== call.epoch) return { kind: 'over' };
    const answer = await answerOf(pool, status);
    if (answer.kind !== 'pending') return answer;
    const leftMs = deadlineMs - Date.now();
    if (leftMs <= 0) return answer;
    await delay(Math.min(everyMs, leftMs), undefined, { signal });
  }
}

async function answerOf(pool: Pool, status: HarnessCallStatus): Promise<CallAnswer> {
  const { effectId, state, executor } = status;
  if (effectId === null || state === null) {
    return status.turnRuns ? { kind: 'pending', waitsForPerson: false } : { kind: 'over' };
  }
  const content = status.result?.content ?? [];
  switch (state) {
    case 'succeeded':
    case 'failed':
      return { kind: 'result', content, isError: status.isError ?? state === 'failed' };
    case 'denied':
      return { kind: 'denied', message: textOf(content) };
    case 'allowed':
    case 'started': {
      if (!status.turnRuns) return { kind: 'over' };
      const begun = executor === 'harness' ? await startHarnessEffect(pool, effectId) : undefined;
      return begun === undefined ? { kind: 'pending', waitsForPerson: false } : { kind: 'allowed', ...begun };
    }
    case 'proposed':
    case 'waiting':
    case 'unknown':
      return status.turnRuns ? { kind: 'pending', waitsForPerson: true } : { kind: 'over' };
    default:
      return assertNever(state);
  }
}

function textOf(content: ContentBlock[]): string {
  return content.flatMap((block) => (block.type === 'text' ? [block.text] : [])).join('\n');
}
