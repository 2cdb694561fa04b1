import type { Client } from '@temporalio/client';
import { ScheduleAlreadyRunning, ScheduleOverlapPolicy } from '@temporalio/client';
import { SearchAttributeType } from '@temporalio/common';
import { MAINTENANCE_SCHEDULE_ID, MAINTENANCE_WORKFLOW_ID } from '../workflows/ids.ts';
import { SEARCH_ATTRIBUTES } from '../workflows/start.ts';

/** Values of the server's IndexedValueType. */
const INDEXED_VALUE_TYPE: Record<string, number> = {
  [SearchAttributeType.TEXT]: 1,
  [SearchAttributeType.KEYWORD]: 2,
  [SearchAttributeType.INT]: 3,
  [SearchAttributeType.DOUBLE]: 4,
  [SearchAttributeType.BOOL]: 5,
  [SearchAttributeType.DATETIME]: 6,
  [SearchAttributeType.KEYWORD_LIST]: 7,
};

/** Registers the search attributes that the server does not know yet; without them no workflow task could finish. */
export async function registerSearchAttributes(client: Client, namespace: string): Promise<string[]> {
  const service = client.connection.operatorService;
  const known = await service.listSearchAttributes({ namespace });
  const missing = Object.entries(SEARCH_ATTRIBUTES).filter(([name]) => known.customAttributes[name] === undefined);
  if (missing.length === 0) return [];
  await service.addSearchAttributes({
    namespace,
    searchAttributes: Object.fromEntries(missing.map(([name, type]) => [name, INDEXED_VALUE_TYPE[type] ?? 0])),
  });
  return missing.map(([name]) => name);
}

/** Makes the schedule of the sweeps, or brings it up to date; several workers may try at once. */
export async function ensureMaintenanceSchedule(client: Client, taskQueue: string, everyMs: number): Promise<void> {
  const scheduleId = `${MAINTENANCE_SCHEDULE_ID}/${taskQueue}`;
  try {
    await client.schedule.create({
      scheduleId,
      spec: { intervals: [{ every: everyMs }] },
      policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: '1 minute' },
      action: {
        type: 'startWorkflow',
        workflowType: 'maintenance',
        workflowId: `${MAINTENANCE_WORKFLOW_ID}/${taskQueue}`,
        taskQueue,
        args: [],
      },
    });
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw error;
    const handle = client.schedule.getHandle(scheduleId);
    await handle.update((schedule) => ({ ...schedule, spec: { intervals: [{ every: everyMs }] } }));
  }
}
