import { deleteOldAnswers } from '../../db/queries/cached-answers.ts';
import { deleteOldFileLinks } from '../../db/queries/file-links.ts';
import { deleteOldFiles } from '../../db/queries/files.ts';
import { deleteOldGatewayResponses } from '../../db/queries/gateway-responses.ts';
import { deleteOldResponses } from '../../db/queries/idempotency.ts';
import {
  deleteAbandonedCalls,
  deleteExpiredKeys,
  deleteExpiredTokens,
  deleteOldEgressRequests,
  deleteOldModelCalls,
  deleteOldProgramRequests,
  deleteOldSecurityEvents,
} from '../../db/queries/retention.ts';
import type { MaintenanceActivities } from '../../workflows/activity-types.ts';
import { withHeartbeat } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { reapSandboxes } from './reaper.ts';

/** Rows of one DELETE. */
const BATCH_ROWS = 1_000;
const PRUNED = [
  deleteOldResponses,
  deleteOldModelCalls,
  deleteAbandonedCalls,
  deleteExpiredKeys,
  deleteExpiredTokens,
  deleteOldAnswers,
  deleteOldGatewayResponses,
  deleteOldFiles,
  deleteOldFileLinks,
  deleteOldEgressRequests,
  deleteOldProgramRequests,
  deleteOldSecurityEvents,
];
/** Idempotent sweeps. */
export function maintenanceActivities(deps: ActivityDeps): MaintenanceActivities {
  return {
    reapSandboxes: () => withHeartbeat((signal) => reapSandboxes(deps, signal)),
    pruneRecords: () =>
      withHeartbeat(async (signal) => {
        let deleted = 0;
        for (const prune of PRUNED) {
          // What is left when the worker goes down is for the next sweep.
          if (signal.aborted) break;
          deleted += await prune(deps.pool, BATCH_ROWS);
        }
        return { deleted };
      }),
  };
}
