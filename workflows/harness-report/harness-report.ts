import { proxyActivities } from '@temporalio/workflow';
import type { HarnessReportActivities } from '../activity-types.ts';

/** Somebody waits for it: a worker that does not answer at once has nothing to say. It looks only, so it may be repeated. */
const activities = proxyActivities<HarnessReportActivities>({
  startToCloseTimeout: 10_000,
  scheduleToCloseTimeout: 20_000,
  retry: { initialInterval: 500, maximumAttempts: 2 },
});

type Report = Awaited<ReturnType<HarnessReportActivities['reportHarnesses']>>;

/** Asks a worker which harnesses it has: the api may be on another machine. */
export function harnessReport(): Promise<Report> {
  return activities.reportHarnesses();
}
