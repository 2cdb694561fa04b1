export { deploymentRun } from './deployment/deployment-run.ts';
export { harnessReport } from './harness-report/harness-report.ts';
export { maintenance } from './maintenance/maintenance.ts';
export { session } from './session/session.ts';
