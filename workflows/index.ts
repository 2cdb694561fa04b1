export { deploymentRun } from './deployment/deployment-run.ts';
export { maintenance } from './maintenance/maintenance.ts';
export { session } from './session/session.ts';
