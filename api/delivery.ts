import {
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowExecutionAlreadyStartedError,
} from '@temporalio/client';
import type { Client } from '@temporalio/client';
import { assertNever } from '../contracts/states.ts';
import type { Pool } from '../db/pool.ts';
import { withTransaction } from '../db/pool.ts';
import type { DeploymentRunRow, OpenRun } from '../db/queries/deployment-runs.ts';
import { findRunOfSession } from '../db/queries/deployment-runs.ts';
import type { InputRow } from '../db/queries/inputs.ts';
import { endInputs, markDelivered } from '../db/queries/inputs.ts';
import type { SessionRow } from '../db/queries/sessions.ts';
import { findSession, listAcceptedInputs, markWorkflowStarted, sessionArgs } from '../db/queries/sessions.ts';
import type { Logger } from '../telemetry/logger.ts';
import { sessionWorkflowId } from '../workflows/ids.ts';
import type { DeploymentRunArgs, SessionArgs } from '../workflows/messages.ts';
import { approve, interrupt, stop, submit, terminate } from '../workflows/messages.ts';
import { inputMessage, sessionStart } from '../workflows/start.ts';
import { endLostRun, endOrphan, releaseLost, workflowState } from './lost-workflow.ts';
import type { Metrics } from './metrics.ts';
import type { Temporal } from './temporal.ts';

/** How long a request waits for its input to reach the workflow; the sweep goes on after it. */
const REQUEST_WAIT_MS = 2_000;
/** Deliveries under way at which requests begin to wait for theirs. */
const PARALLEL_DELIVERIES = 256;
const CALL_WAIT_MS = 10_000;
const CHECK_WAIT_MS = 3_000;
const DRAIN_WAIT_MS = 2_000;
const BATCH = 100;
/** Inputs the start of a workflow carries; the rest follow one by one. */
const START_INPUTS = 50;

interface DeliveryDeps {
  pool: Pool;
  temporal: Temporal;
  taskQueue: string;
  logger: Logger;
  metrics: Metrics;
}

/**
 * Hands committed inputs to session workflows. It reads what to do from Postgres each time and every message is
 * idempotent (same id), so it may be called by requests, by the sweep and by several processes at once.
 */
export class Delivery {
  private readonly deps: DeliveryDeps;
  private readonly lost: { pool: Pool; client: Client };
  private readonly running = new Map<string, Promise<void>>();
  private readonly again = new Set<string>();

  constructor(deps: DeliveryDeps) {
    this.deps = deps;
    this.lost = { pool: deps.pool, client: deps.temporal.client };
  }

  /**
   * For a request: its answer does not wait, since the row is committed and the sweep repeats what this attempt misses.
   * Only with many deliveries under way does it wait a bounded time, so that clients are not faster than Temporal.
   */
  async deliver(sessionId: string): Promise<void> {
    const delivery = this.kick(sessionId);
    if (this.running.size > PARALLEL_DELIVERIES) await within(REQUEST_WAIT_MS, delivery);
  }

  /** One delivery per session at a time, in order; resolves when all that was accepted before the call was tried. */
  kick(sessionId: string): Promise<void> {
    const current = this.running.get(sessionId);
    if (current !== undefined) {
      this.again.add(sessionId);
      return current;
    }
    const run = this.run(sessionId);
    this.running.set(sessionId, run);
    return run;
  }

  /**
   * Notices that the workflow of a session was ended from outside or lost, without an input that would show it. False
   * when that could not be told now.
   */
  async check(sessionId: string): Promise<boolean> {
    return this.checked({ sessionId }, async () => {
      const revived = await this.deps.temporal.withDeadline(CHECK_WAIT_MS, () => this.recover(sessionId));
      if (revived) await this.kick(sessionId);
    });
  }

  /** The same for a deployment run. */
  async checkRun(run: OpenRun): Promise<boolean> {
    return this.checked({ runId: run.id }, () =>
      this.deps.temporal.withDeadline(CHECK_WAIT_MS, () => endLostRun(this.lost, run)),
    );
  }

  private async checked(what: object, check: () => Promise<void>): Promise<boolean> {
    try {
      await check();
      return true;
    } catch (error) {
      this.deps.logger.warn({ ...what, err: error }, 'workflow not checked; the sweep tries again');
      return false;
    }
  }

  /** For shutdown: waits a bounded time for running deliveries; the next process finds what is left. */
  async drain(): Promise<void> {
    await within(DRAIN_WAIT_MS, Promise.allSettled(this.running.values()));
  }

  private async run(sessionId: string): Promise<void> {
    do {
      this.again.delete(sessionId);
      try {
        await this.deps.temporal.withDeadline(CALL_WAIT_MS, () => this.deliverSession(sessionId));
        this.deps.metrics.deliveries.inc({ outcome: 'ok' });
      } catch (error) {
        this.again.delete(sessionId);
        this.deps.metrics.deliveries.inc({ outcome: 'later' });
        this.deps.logger.warn({ sessionId, err: error }, 'not delivered yet; the sweep tries again');
      }
    } while (this.again.has(sessionId));
    // In the same turn of the event loop as the last look at `again`: a kick after it starts a run of its own.
    this.running.delete(sessionId);
  }

  private async deliverSession(sessionId: string): Promise<void> {
    const row = await findSession(this.deps.pool, sessionId);
    if (row === undefined) return;
    if (row.status === 'terminated') return this.cancelInputs(sessionId, 'the session has ended');
    if (row.workflowStartedAt === null && !(await this.start(row))) return;
    for (;;) {
      const inputs = await listAcceptedInputs(this.deps.pool, sessionId, BATCH);
      for (const input of inputs) {
        if (!(await this.sendOne(row, input))) return;
      }
      if (inputs.length < BATCH) return;
    }
  }

  /** False when the session will get its workflow from its deployment run, or has ended. */
  private async start(row: SessionRow): Promise<boolean> {
    if (row.deploymentId !== null) {
      const run = await findRunOfSession(this.deps.pool, row.id);
      if (run?.status === 'running' && (await this.ensureRun(run))) return false;
    }
    return (await this.startOrEnd(row)) !== 'ended';
  }

  private async startOrEnd(row: SessionRow): Promise<'started' | 'running' | 'ended'> {
    const outcome = await this.startWorkflow(row);
    if (outcome === 'ended') await endOrphan(this.lost, row.id);
    return outcome;
  }

  /** True when the deployment run's workflow lives: it starts the session and waits for it. */
  private async ensureRun(run: DeploymentRunRow): Promise<boolean> {
    const { client } = this.deps.temporal;
    if (run.triggerContext.type === 'manual' && run.sessionId !== null) {
      const args: DeploymentRunArgs = { deploymentId: run.deploymentId, runId: run.id, sessionId: run.sessionId };
      try {
        await client.workflow.start('deploymentRun', {
          workflowId: run.workflowId,
          taskQueue: this.deps.taskQueue,
          args: [args],
          workflowIdConflictPolicy: 'FAIL',
          workflowIdReusePolicy: 'REJECT_DUPLICATE',
          staticSummary: `Manual run of ${run.deploymentId}`,
        });
        return true;
      } catch (error) {
        if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
      }
    }
    return (await workflowState(client, run.workflowId)) === 'open';
  }

  /**
   * Starts with the messages accepted so far. With a conflict the start was made before and may not have carried the
   * same inputs: they are then sent one by one, which the workflow tells apart by their ids.
   */
  private async startWorkflow(row: SessionRow): Promise<'started' | 'running' | 'ended'> {
    const { pool, taskQueue, temporal } = this.deps;
    const accepted = await listAcceptedInputs(pool, row.id, START_INPUTS);
    const firstOther = accepted.findIndex((input) => input.kind !== 'message');
    const inputs = firstOther === -1 ? accepted : accepted.slice(0, firstOther);
    const args: SessionArgs = sessionArgs(row, inputs.map(inputMessage));
    try {
      const start = sessionStart(args, { ...row, harness: row.agent.harness }, taskQueue);
      await temporal.client.workflow.start('session', start);
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
      const state = await workflowState(temporal.client, sessionWorkflowId(row.id));
      if (state === 'missing') throw error;
      if (state === 'ended') return 'ended';
      await markWorkflowStarted(pool, row.id);
      return 'running';
    }
    await markWorkflowStarted(pool, row.id);
    await markDelivered(
      pool,
      inputs.map((input) => input.eventId),
    );
    return 'started';
  }

  /** False when the rest must wait (the queue is full, or the session has ended). */
  private async sendOne(row: SessionRow, input: InputRow): Promise<boolean> {
    try {
      await this.send(row.id, input);
    } catch (error) {
      if (error instanceof WorkflowUpdateFailedError) {
        this.deps.logger.info({ sessionId: row.id, eventId: input.eventId, err: error }, 'input refused for now');
        return false;
      }
      if (!(error instanceof WorkflowNotFoundError)) throw error;
      if (await this.recover(row.id)) this.again.add(row.id);
      return false;
    }
    await markDelivered(this.deps.pool, [input.eventId]);
    return true;
  }

  /** For a session whose workflow does not answer; true when it has a new one. */
  private async recover(sessionId: string): Promise<boolean> {
    const state = await workflowState(this.lost.client, sessionWorkflowId(sessionId));
    if (state === 'ended') await endOrphan(this.lost, sessionId);
    if (state !== 'missing' || !(await releaseLost(this.lost, sessionId))) return false;
    const row = await findSession(this.deps.pool, sessionId);
    return row !== undefined && (await this.startOrEnd(row)) === 'started';
  }

  private async send(sessionId: string, input: InputRow): Promise<void> {
    const handle = this.deps.temporal.client.workflow.getHandle(sessionWorkflowId(sessionId));
    const message = inputMessage(input);
    const { eventId } = message;
    switch (message.kind) {
      case 'message':
      case 'custom_tool_result':
        // Its handler answers at once; `startUpdate` would not tell that the workflow refused.
        await handle.executeUpdate(submit, { args: [message], updateId: eventId });
        return;
      case 'interrupt':
        return handle.signal(interrupt, { eventId });
      case 'stop':
        return handle.signal(stop, { eventId });
      case 'terminate':
        return handle.signal(terminate, { eventId, reason: textOf(input.message['reason']) ?? 'terminated' });
      case 'tool_confirmation': {
        if (message.approvalId === undefined || message.decision === undefined) return;
        const text = textOf(input.message['message']);
        return handle.signal(approve, {
          approvalId: message.approvalId,
          decision: message.decision,
          eventId,
          ...(text === undefined ? {} : { message: text }),
        });
      }
      default:
        return assertNever(message.kind);
    }
  }

  private async cancelInputs(sessionId: string, reason: string): Promise<void> {
    await withTransaction(this.deps.pool, (tx) => endInputs(tx, { sessionId }, 'cancelled', reason));
  }
}

/** Resolves when `work` is done, or after `waitMs` while it goes on. */
async function within(waitMs: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, waitMs);
  });
  try {
    await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
