import { deleteOldAnswers } from '../../db/queries/cached-answers.ts';
import { deleteOldFileLinks } from '../../db/queries/file-links.ts';
import { deleteOldFiles } from '../../db/queries/files.ts';
import { deleteOldGatewayResponses } from '../../db/queries/gateway-responses.ts';
import { deleteOldResponses } from '../../db/queries/idempotency.ts';
import { deleteAbandonedCalls, deleteExpiredKeys, deleteOldModelCalls } from '../../db/queries/retention.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import {
  listDoomedSandboxes,
  listExpiredLeases,
  listLiveSandboxRefs,
  updateSandbox,
} from '../../db/queries/sandboxes.ts';
import type { MaintenanceActivities } from '../../workflows/activity-types.ts';
import { withHeartbeat } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';

const BATCH = 200;
/** Rows of one DELETE. */
const BATCH_ROWS = 1_000;
const PRUNED = [
  deleteOldResponses,
  deleteOldModelCalls,
  deleteAbandonedCalls,
  deleteExpiredKeys,
  deleteOldAnswers,
  deleteOldGatewayResponses,
  deleteOldFiles,
  deleteOldFileLinks,
];
/** A sandbox whose row is about to be written must not be taken for a stray. */
const STRAY_AGE_MS = 5 * 60_000;

/** The reaper: what crashes leave behind is found by lists, never by hoping for a redelivery. */
export function maintenanceActivities(deps: ActivityDeps): MaintenanceActivities {
  return {
    reapSandboxes: () =>
      withHeartbeat(async (signal) => {
        const destroyed = await destroyDoomed(deps, signal);
        const paused = await pauseExpired(deps, signal);
        const strays = await destroyStrays(deps, signal);
        return { destroyed, paused, strays };
      }),
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

/** One sandbox that resists must not keep the others: it is logged, and tried again by the next sweep. */
async function countDone(
  deps: ActivityDeps,
  rows: SandboxRow[],
  work: (row: SandboxRow) => Promise<void>,
): Promise<number> {
  let done = 0;
  for (const row of rows) {
    try {
      await work(row);
      done += 1;
    } catch (error) {
      deps.logger.error({ sandboxId: row.id, provider: row.provider, err: error }, 'sandbox could not be reaped');
    }
  }
  return done;
}

async function destroyDoomed(deps: ActivityDeps, signal: AbortSignal): Promise<number> {
  const doomed = await listDoomedSandboxes(deps.pool, BATCH);
  return countDone(deps, doomed, async (row) => {
    if (row.ref !== null) await deps.sandboxProvider(row.provider).destroy(row.ref, signal);
    await updateSandbox(deps.pool, row.id, 'destroyed', 0);
  });
}

async function pauseExpired(deps: ActivityDeps, signal: AbortSignal): Promise<number> {
  const expired = await listExpiredLeases(deps.pool, BATCH);
  return countDone(deps, expired, async (row) => {
    if (row.ref !== null) await deps.sandboxProvider(row.provider).pause(row.ref, signal);
    await updateSandbox(deps.pool, row.id, 'paused', 0);
  });
}

/** Sandboxes of ours that no row knows: a crash between the provider's answer and our commit, or a lost database. */
async function destroyStrays(deps: ActivityDeps, signal: AbortSignal): Promise<number> {
  const known = await listLiveSandboxRefs(deps.pool);
  let strays = 0;
  for (const provider of deps.sandboxProviders()) {
    for await (const info of provider.list(deps.sandboxOwner, signal)) {
      if (known.has(info.ref.id) || info.createdAtMs > Date.now() - STRAY_AGE_MS) continue;
      await provider.destroy(info.ref, signal);
      strays += 1;
    }
  }
  return strays;
}
