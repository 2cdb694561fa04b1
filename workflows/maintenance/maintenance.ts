import { proxyActivities } from '@temporalio/workflow';
import type { MaintenanceActivities } from '../activity-types.ts';

/**
 * Idempotent sweeps; one that fails is repeated by the next firing of the schedule, so it is not retried for long. A sweep
 * saves files and takes outputs, each with a limit of its own: one that hangs must not keep the rest from its turn.
 */
const activities = proxyActivities<MaintenanceActivities>({
  startToCloseTimeout: 20 * 60_000,
  scheduleToCloseTimeout: 30 * 60_000,
  heartbeatTimeout: 20_000,
  retry: { initialInterval: 1_000, maximumAttempts: 3 },
});

/** Started by a Temporal Schedule: leases of sandboxes and old records. */
export async function maintenance(): Promise<void> {
  // One that fails must not keep the other from its work; the run still shows it.
  const results = await Promise.allSettled([activities.reapSandboxes(), activities.pruneRecords()]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
