import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client } from '@temporalio/client';
import type { StopReasonType } from '../contracts/states.ts';
import type { Pool, Queryable } from '../db/pool.ts';
import { withTransaction } from '../db/pool.ts';
import type { OpenRun } from '../db/queries/deployment-runs.ts';
import { endRun, findRunOfSession } from '../db/queries/deployment-runs.ts';
import { writeSessionEnd } from '../db/queries/session-end.ts';
import { lockSession } from '../db/queries/session-status.ts';
import { hasOpenInputs, requeueInputs } from '../db/queries/sessions.ts';
import { writeTurnEnd } from '../db/queries/turn-end.ts';
import { runningTurnsBefore } from '../db/queries/turns.ts';
import { sessionWorkflowId } from '../workflows/ids.ts';
import { turnEnded } from '../workflows/messages.ts';

const ENDED = new Set<string>(['COMPLETED', 'FAILED', 'CANCELLED', 'TERMINATED', 'TIMED_OUT']);
const AFTER_EVERY_TURN = 2 ** 31 - 1;
const ENDED_REASON = 'its workflow has ended';
const LOST_REASON = 'the workflow of this turn was lost';

interface LostDeps {
  pool: Pool;
  client: Client;
}

/** What Temporal knows of a workflow; a paused one is open. */
export async function workflowState(client: Client, workflowId: string): Promise<'open' | 'ended' | 'missing'> {
  try {
    const { status } = await client.workflow.getHandle(workflowId).describe();
    return ENDED.has(status.name) ? 'ended' : 'open';
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return 'missing';
    throw error;
  }
}

/** The workflow is gone without its finalizer (ended from outside): the rows say so, and nothing revives it. */
export async function endOrphan(deps: LostDeps, sessionId: string): Promise<void> {
  await withTransaction(deps.pool, async (tx) => {
    if ((await lockSession(tx, sessionId)) !== 'terminated') await endRows(deps, tx, sessionId);
  });
}

async function endRows(deps: LostDeps, tx: Queryable, sessionId: string): Promise<void> {
  await failRunningTurns(tx, sessionId, ENDED_REASON);
  await writeSessionEnd(tx, sessionId, ENDED_REASON, ENDED_REASON);
  await failRun(deps, tx, sessionId, 'terminated');
}

/**
 * Temporal lost the history of a session: what it was doing has failed, what waited waits again for the workflow that is
 * started next. At work without anything that waits, the session ends. Says whether a workflow may be started.
 */
export async function releaseLost(deps: LostDeps, sessionId: string): Promise<boolean> {
  return withTransaction(deps.pool, async (tx) => {
    const status = await lockSession(tx, sessionId);
    if (status === 'terminated') return false;
    // Under the lock no turn opens: nothing of a workflow that somebody has just started is taken for lost.
    if ((await workflowState(deps.client, sessionWorkflowId(sessionId))) !== 'missing') return false;
    if (!(await hasOpenInputs(tx, sessionId))) {
      // An idle session needs no workflow: its next message starts one.
      if (status !== 'idle') await endRows(deps, tx, sessionId);
      return false;
    }
    await failRunningTurns(tx, sessionId, LOST_REASON);
    await requeueInputs(tx, sessionId, LOST_REASON);
    await failRun(deps, tx, sessionId, 'retries_exhausted');
    return true;
  });
}

async function failRunningTurns(tx: Queryable, sessionId: string, reason: string): Promise<void> {
  for (const turn of await runningTurnsBefore(tx, sessionId, AFTER_EVERY_TURN)) {
    await writeTurnEnd(tx, { sessionId, turn, state: 'failed', stopReason: 'retries_exhausted', reason, eventIds: [] });
  }
}

/** The deployment run that waits for this session is told: a lingering one would hold its schedule back. */
async function failRun(
  deps: LostDeps,
  tx: Queryable,
  sessionId: string,
  stopReason: StopReasonType | 'terminated',
): Promise<void> {
  const run = await findRunOfSession(tx, sessionId);
  if (run?.status !== 'running') return;
  try {
    await deps.client.workflow.getHandle(run.workflowId).signal(turnEnded, { sessionId, stopReason });
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
  }
  const message = 'the workflow of its session has ended';
  await endRun(tx, run.id, { status: 'failed', error: { type: 'session_lost', message } });
}

/** The workflow of a deployment run is gone without having written its end: nobody waits for the result any more. */
export async function endLostRun(deps: LostDeps, run: OpenRun): Promise<void> {
  const state = await workflowState(deps.client, run.workflowId);
  // One that Temporal does not know may be about to start.
  if (state === 'open' || (state === 'missing' && !run.sessionStarted)) return;
  const message =
    state === 'ended' ? 'the workflow of this run has ended without a result' : 'the workflow of this run was lost';
  await endRun(deps.pool, run.id, { status: 'failed', error: { type: 'run_lost', message } });
}
