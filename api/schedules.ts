import type { ScheduleOptions, ScheduleSpec } from '@temporalio/client';
import { ScheduleAlreadyRunning, ScheduleNotFoundError, ScheduleOverlapPolicy } from '@temporalio/client';
import { Cron } from 'croner';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Pool } from '../db/pool.ts';
import { withTransaction } from '../db/pool.ts';
import type { CronSchedule, DeploymentRow } from '../db/queries/deployments.ts';
import { lockForSync, markSynced } from '../db/queries/deployments.ts';
import type { Logger } from '../telemetry/logger.ts';
import { deploymentScheduleId, scheduledRunWorkflowId } from '../workflows/ids.ts';
import type { DeploymentRunArgs } from '../workflows/messages.ts';
import type { Temporal } from './temporal.ts';

const CATCHUP_WINDOW_MS = 10 * 60_000;
const SYNC_WAIT_MS = 5_000;
const READ_WAIT_MS = 1_000;
const UPCOMING = 5;

interface SchedulesDeps {
  pool: Pool;
  temporal: Temporal;
  taskQueue: string;
  logger: Logger;
}

/** Keeps Temporal's schedules as the deployment rows say. The row is the truth and comes first. */
export class Schedules {
  private readonly deps: SchedulesDeps;

  constructor(deps: SchedulesDeps) {
    this.deps = deps;
  }

  /** Brings one schedule up to date; on failure (false) the row stays marked and the sweep calls again. */
  async sync(deploymentId: string): Promise<boolean> {
    const { pool, temporal, logger } = this.deps;
    try {
      await withTransaction(pool, async (tx) => {
        // The row lock keeps an older state from overwriting a newer one.
        const row = await lockForSync(tx, deploymentId);
        if (row === undefined || row.scheduleRevision === row.scheduleSyncedRevision) return;
        await temporal.withDeadline(SYNC_WAIT_MS, () => this.apply(row));
        await markSynced(tx, row.id, row.scheduleRevision);
      });
      return true;
    } catch (error) {
      logger.warn({ deploymentId, err: error }, 'schedule not up to date yet; the sweep tries again');
      return false;
    }
  }

  private async apply(row: DeploymentRow): Promise<void> {
    const { client } = this.deps.temporal;
    const handle = client.schedule.getHandle(deploymentScheduleId(row.id));
    if (row.schedule === null || row.archivedAt !== null) {
      try {
        await handle.delete();
      } catch (error) {
        if (!(error instanceof ScheduleNotFoundError)) throw error;
      }
      return;
    }
    const options = this.optionsOf(row, row.schedule);
    try {
      await client.schedule.create(options);
    } catch (error) {
      if (!(error instanceof ScheduleAlreadyRunning)) throw error;
      await handle.update((before) => ({
        ...before,
        spec: options.spec,
        action: options.action,
        state: { ...before.state, paused: row.status === 'paused', note: noteOf(row) },
      }));
    }
  }

  private optionsOf(row: DeploymentRow, schedule: CronSchedule) {
    const args: [DeploymentRunArgs] = [{ deploymentId: row.id }];
    return {
      scheduleId: deploymentScheduleId(row.id),
      spec: specOf(schedule),
      action: {
        type: 'startWorkflow',
        workflowType: 'deploymentRun',
        workflowId: scheduledRunWorkflowId(row.id),
        taskQueue: this.deps.taskQueue,
        args,
        staticSummary: `Scheduled run of ${row.name}`.slice(0, 200),
      },
      policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: CATCHUP_WINDOW_MS },
      state: { paused: row.status === 'paused', note: noteOf(row) },
    } satisfies ScheduleOptions;
  }

  /** Next and last firing as Temporal has them; without Temporal the next ones are computed. */
  async times(row: DeploymentRow): Promise<{ upcoming: string[]; last: string | null } | undefined> {
    if (row.schedule === null) return undefined;
    try {
      const { temporal } = this.deps;
      const handle = temporal.client.schedule.getHandle(deploymentScheduleId(row.id));
      const { info, state } = await temporal.withDeadline(READ_WAIT_MS, () => handle.describe());
      const last = info.recentActions.at(-1)?.scheduledAt.toISOString() ?? null;
      const upcoming = state.paused ? [] : info.nextActionTimes.slice(0, UPCOMING).map((at) => at.toISOString());
      return { upcoming, last };
    } catch {
      return undefined;
    }
  }
}

function noteOf(row: DeploymentRow): string {
  return row.pausedReason === null ? `deployment ${row.id}` : `deployment ${row.id}: paused (${row.pausedReason.type})`;
}

/** The next firings of a live deployment, computed here. */
export function upcomingRuns(row: Pick<DeploymentRow, 'schedule' | 'status' | 'archivedAt'>): string[] {
  if (row.schedule === null || row.status === 'paused' || row.archivedAt !== null) return [];
  const cron = new Cron(row.schedule.expression, { timezone: row.schedule.timezone });
  return cron.nextRuns(UPCOMING).map((at) => at.toISOString());
}

/**
 * POSIX fires when day-of-month OR day-of-week matches, if both are restricted; Temporal wants both to match, so such
 * an expression becomes two.
 */
export function specOf(schedule: CronSchedule): ScheduleSpec {
  const [minute, hour, day, month, weekday] = schedule.expression.trim().split(/\s+/);
  const either = day !== undefined && weekday !== undefined && !day.startsWith('*') && !weekday.startsWith('*');
  const cronExpressions = either
    ? [`${minute} ${hour} ${day} ${month} *`, `${minute} ${hour} * ${month} ${weekday}`]
    : [schedule.expression.trim()];
  return { cronExpressions, timezone: schedule.timezone };
}

/** Refuses what is not a five-field cron expression that fires some day, or not an IANA time zone. */
export function requireCron(schedule: { expression: string; timezone: string }): void {
  const field = 'schedule.expression';
  const fields = schedule.expression.trim().split(/\s+/);
  if (fields.length !== 5 || !fields.every((part) => /^[0-9A-Za-z*,/-]+$/.test(part))) {
    throw new LonghaulError('invalid_request', 'must be five cron fields: minute hour day month weekday', { field });
  }
  requireTimeZone(schedule.timezone);
  let next: Date | null;
  try {
    next = new Cron(schedule.expression, { timezone: schedule.timezone }).nextRun();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LonghaulError('invalid_request', reason.slice(0, 200), { field, cause: error });
  }
  if (next === null) throw new LonghaulError('invalid_request', 'never fires', { field });
}

function requireTimeZone(timezone: string): void {
  const field = 'schedule.timezone';
  const wrong = new LonghaulError('invalid_request', 'must be an IANA time zone such as Europe/Berlin', { field });
  if (!/^[A-Za-z][A-Za-z0-9_+-]*(\/[A-Za-z0-9_+-]+)*$/.test(timezone)) throw wrong;
  try {
    const known = new Intl.DateTimeFormat('en', { timeZone: timezone }).resolvedOptions().timeZone;
    // Temporal compares names by case, this runtime does not.
    if (known !== timezone && known.toLowerCase() === timezone.toLowerCase()) throw wrong;
  } catch {
    throw wrong;
  }
}
