import { setTimeout as delay } from 'node:timers/promises';
import {
  deleteE2bEnded,
  getE2bSandbox,
  listE2bDue,
  listE2bRefs,
  moveE2bSandbox,
  type E2bSandboxRow,
} from '../../db/queries/e2b-sandboxes.ts';
import { deleteEndedE2bProcesses } from '../../db/queries/e2b-processes.ts';
import { deleteE2bSnapshotsUnmade, listE2bSnapshotRefs } from '../../db/queries/e2b-snapshots.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { bounded, followEnd, followPause, killSandbox, pauseSandbox, type E2bDeps } from './sandboxes.ts';

const BATCH = 100;
const STRAYS_EVERY_MS = 60_000;
/** Longer than any snapshot takes. */
const SNAPSHOT_MS = 3_600_000;

/** Ends or pauses what is over, finishes what a crash cut short, removes what no row knows; until the signal. */
export async function runSweep(deps: E2bDeps, signal: AbortSignal): Promise<void> {
  let strayedMs = 0;
  while (!signal.aborted) {
    try {
      await sweepDue(deps);
      if (Date.now() - strayedMs > Math.min(STRAYS_EVERY_MS, deps.config.graceMs)) {
        strayedMs = Date.now();
        await sweepStrays(deps);
        await sweepSnapshots(deps);
        await deleteE2bEnded(deps.pool, LIMITS.e2bEndedKeptMs);
        await deleteEndedE2bProcesses(deps.pool, LIMITS.e2bEndedProcessesKeptMs);
      }
    } catch (error) {
      deps.logger.warn({ err: error }, 'the sweep failed; it tries again');
    }
    await delay(deps.config.sweepMs, undefined, { signal }).catch(() => undefined);
  }
}

async function sweepDue(deps: E2bDeps): Promise<void> {
  const pausedMs = LIMITS.e2bPausedMs;
  for (const row of await listE2bDue(deps.pool, { graceMs: deps.config.graceMs, pausedMs, limit: BATCH })) {
    try {
      await finish(deps, row);
    } catch (error) {
      deps.logger.warn({ err: error, sandboxId: row.id }, 'a sandbox could not be ended yet');
    }
  }
}

async function finish(deps: E2bDeps, row: E2bSandboxRow): Promise<void> {
  if (row.state === 'ended') return followEnd(deps, row);
  if (row.state === 'running') {
    // Without a reference its creation was cut short: nobody got to know of it.
    if (row.ref !== null && row.onTimeout === 'pause') await pauseSandbox(deps, row, row.keepMemory);
    else await killSandbox(deps, row);
    return;
  }
  if (row.settled) await killSandbox(deps, row);
  else await followPause(deps, row);
}

/** Sandboxes of this server that no row knows: what a crash left of a creation whose row was ended. */
async function sweepStrays(deps: E2bDeps): Promise<void> {
  const known = await listE2bRefs(deps.pool);
  for await (const info of deps.provider.list(deps.config.owner, bounded())) {
    if (known.has(info.ref.id) || Date.now() - info.createdAtMs < deps.config.graceMs) continue;
    const row = await getE2bSandbox(deps.pool, info.labels['e2b'] ?? '');
    if (row !== undefined) {
      if (row.ref !== null) continue;
      await moveE2bSandbox(deps.pool, row.id, 'running', 'ended');
    }
    deps.logger.warn({ sandboxId: info.ref.id }, 'removing a sandbox that no row knows');
    await deps.provider.destroy(info.ref, bounded());
  }
}

/** Snapshots whose row went first, or never heard of them. */
async function sweepSnapshots(deps: E2bDeps): Promise<void> {
  const oldMs = Date.now() - SNAPSHOT_MS;
  await deleteE2bSnapshotsUnmade(deps.pool, SNAPSHOT_MS);
  const known = await listE2bSnapshotRefs(deps.pool);
  for await (const info of deps.provider.listSnapshots(deps.config.owner, bounded())) {
    if (!known.has(info.ref.id) && info.createdAtMs < oldMs) await deps.provider.deleteSnapshot(info.ref, bounded());
  }
}
