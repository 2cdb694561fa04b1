/** Workflow ids come from here only. */
export const sessionWorkflowId = (sessionId: string): string => `session/${sessionId}`;
export const deploymentScheduleId = (deploymentId: string): string => `deployment/${deploymentId}`;
/** A schedule's firing: the server appends the time to this id. */
export const scheduledRunWorkflowId = (deploymentId: string): string => `deployment/${deploymentId}/scheduled`;
export const manualRunWorkflowId = (deploymentId: string, runId: string): string =>
  `deployment/${deploymentId}/${runId}`;
/** Somebody asks a worker what it has. */
export const harnessReportWorkflowId = (nonce: string): string => `harness-report/${nonce}`;
export const MAINTENANCE_SCHEDULE_ID = 'maintenance';
export const MAINTENANCE_WORKFLOW_ID = 'maintenance/run';
