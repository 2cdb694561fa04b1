import { randomUUID } from 'node:crypto';
import type { HarnessReport } from '../activities/harness/report.ts';
import type { Logger } from '../telemetry/logger.ts';
import { harnessReportWorkflowId } from '../workflows/ids.ts';
import type { Temporal } from './temporal.ts';

const WAIT_MS = 8_000;

/** What a worker has of harnesses: it may be on another machine. Undefined when none answers. */
export async function askHarnessReport(
  temporal: Temporal,
  taskQueue: string,
  log: Logger,
): Promise<HarnessReport | undefined> {
  try {
    return (await temporal.withDeadline(WAIT_MS, () =>
      temporal.client.workflow.execute('harnessReport', {
        taskQueue,
        workflowId: harnessReportWorkflowId(randomUUID()),
        workflowExecutionTimeout: WAIT_MS,
        staticSummary: 'What a worker has of harnesses',
      }),
    )) as HarnessReport;
  } catch (error) {
    log.warn({ err: error }, 'no worker told what it has of harnesses');
    return undefined;
  }
}
