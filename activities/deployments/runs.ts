import { ApplicationFailure } from '@temporalio/activity';
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/client';
import { requireRow, withTransaction } from '../../db/pool.ts';
import { createDeploymentSession } from '../../db/queries/deployments.ts';
import { endRun as endRunRow } from '../../db/queries/deployment-runs.ts';
import { markDelivered } from '../../db/queries/inputs.ts';
import { writeSessionEnd } from '../../db/queries/session-end.ts';
import { findSession, listAcceptedInputs, markWorkflowStarted, sessionArgs } from '../../db/queries/sessions.ts';
import type { DeploymentActivities, RunEnd } from '../../workflows/activity-types.ts';
import { inputMessage, sessionStart } from '../../workflows/start.ts';
import { asFailure } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';

const INPUTS_AT_START = 100;
/** Stop reasons of a first turn that count as success; anything else fails the run, and with it the schedule shows it. */
const GOOD_ENDS = new Set(['end_turn', 'max_tokens']);

export function deploymentActivities(deps: ActivityDeps): DeploymentActivities {
  return {
    createScheduledRun: ({ deploymentId, workflowId, scheduledAt }) =>
      asFailure(async () => {
        const trigger = { type: 'schedule', scheduled_at: scheduledAt } as const;
        const made = await withTransaction(deps.pool, (tx) =>
          createDeploymentSession(tx, { deploymentId, workflowId, trigger }),
        );
        if (made === null) return null;
        if (made.sessionId === null) {
          throw ApplicationFailure.nonRetryable(`run ${made.runId} could not make a session`, 'run_refused');
        }
        return { runId: made.runId, sessionId: made.sessionId };
      }),
    startSession: ({ sessionId, notify }) => asFailure(() => startSession(deps, sessionId, notify)),
    endRun: ({ runId, stopReason, unbegun }) =>
      asFailure(async () => {
        const ok = GOOD_ENDS.has(stopReason);
        const end = ok
          ? ({ status: 'succeeded' } as const)
          : ({ status: 'failed', error: errorOf(stopReason) } as const);
        await withTransaction(deps.pool, async (tx) => {
          // Nobody is to begin the work of a run that was cancelled.
          if (unbegun !== undefined) await writeSessionEnd(tx, unbegun, 'its deployment run was cancelled');
          await endRunRow(tx, runId, end);
        });
        return { ok };
      }),
  };
}

function errorOf(stopReason: RunEnd): { type: string; message: string } {
  switch (stopReason) {
    case 'cancelled':
      return { type: 'run_cancelled', message: 'the run was cancelled' };
    case 'not_started':
      return { type: 'session_not_started', message: 'the session could not be started' };
    default:
      return { type: 'turn_failed', message: `the first turn ended with ${stopReason}` };
  }
}

/**
 * Starts the session's workflow with the messages accepted so far. When it was started before (by an earlier attempt, or
 * by the outbox sweep) those messages may not have gone with it: the sweep delivers them one by one.
 */
async function startSession(deps: ActivityDeps, sessionId: string, notify: string): Promise<void> {
  const row = requireRow(await findSession(deps.pool, sessionId), `session ${sessionId}`);
  const accepted = await listAcceptedInputs(deps.pool, sessionId, INPUTS_AT_START);
  const firstOther = accepted.findIndex((input) => input.kind !== 'message');
  const inputs = firstOther === -1 ? accepted : accepted.slice(0, firstOther);
  const args = { ...sessionArgs(row, inputs.map(inputMessage)), notify };
  try {
    const start = sessionStart(args, { ...row, harness: row.agent.harness }, deps.taskQueue);
    await deps.temporal.workflow.start('session', start);
    await markDelivered(
      deps.pool,
      inputs.map((input) => input.eventId),
    );
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
  }
  await markWorkflowStarted(deps.pool, sessionId);
}
