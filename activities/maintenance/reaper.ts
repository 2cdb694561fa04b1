import { LIMITS } from '../../contracts/limits.ts';
import { takeOldEnvironmentSnapshots } from '../../db/queries/environment-snapshots.ts';
import type { KnownSandbox } from '../../db/queries/sandbox-reaping.ts';
import {
  findKnownSandboxes,
  findKnownSnapshots,
  listDoomedSandboxes,
  listLeftSnapshots,
  listOpenEgress,
} from '../../db/queries/sandbox-reaping.ts';
import type { IdleAct, SandboxRow } from '../../db/queries/sandboxes.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import { forgetSnapshot, listDue, listExpiredLeases } from '../../db/queries/sandboxes.ts';
import type { MaintenanceActivities } from '../../workflows/activity-types.ts';
import { collectOrTell } from '../artifacts/collect.ts';
import type { ActivityDeps } from '../deps.ts';
import { closeEgress } from '../sandbox/egress.ts';
import { actWhenIdle } from '../sandbox/idle.ts';
import type { SandboxInfo, SandboxProvider, SnapshotInfo } from '../sandbox/port.ts';
import { releaseSandbox } from '../sandbox/release.ts';

const BATCH = 200;
/** A sandbox or snapshot whose row is about to be written must not be taken for a stray. */
const STRAY_AGE_MS = 5 * 60_000;
/** One kind of idle work begins nothing new after this long: the others have their turn, and the next sweep goes on. */
const ACT_MS = 4 * 60_000;

type Reaped = Awaited<ReturnType<MaintenanceActivities['reapSandboxes']>>;

/** What crashes leave behind is found by lists, never by hoping for a redelivery; one pass leaves nothing over. */
export async function reapSandboxes(deps: ActivityDeps, signal: AbortSignal): Promise<Reaped> {
  const doomed = await listDoomedSandboxes(deps.pool, BATCH);
  const destroyed = await countDone(deps, doomed, (row) => releaseSandbox(deps, row, signal));
  // What is lost comes before what is idle: that can take long.
  let strays = 0;
  for (const provider of deps.sandboxProviders()) strays += await sweepProvider(deps, provider, signal);
  if (deps.egress !== null) {
    const open = await listOpenEgress(deps.pool, BATCH);
    await countDone(deps, open, ({ id }) => closeEgress(deps, id, signal));
  }
  await deleteLeftSnapshots(deps, signal);
  const idle = async (act: IdleAct): Promise<number> => {
    const untilMs = Date.now() + ACT_MS;
    return countDone(deps, await listDue(deps.pool, act, BATCH), async (row) => {
      if (Date.now() > untilMs) return false;
      if (act !== 'snapshot') await keepOutputs(deps, row, signal);
      return actWhenIdle(deps, row, act, signal);
    });
  };
  await idle('snapshot');
  const released = await idle('destroy');
  const expired = await listExpiredLeases(deps.pool, BATCH);
  const paused =
    (await idle('pause')) + (await countDone(deps, expired, (row) => actWhenIdle(deps, row, 'expired', signal)));
  return { destroyed: destroyed + released, paused, strays };
}

/** What programs wrote after the last turn ended; a sandbox that sleeps cannot be asked. */
async function keepOutputs(deps: ActivityDeps, row: SandboxRow, signal: AbortSignal): Promise<void> {
  if (row.state !== 'running') return;
  const { teamId } = await loadSessionForTurn(deps.pool, row.sessionId);
  await collectOrTell(deps, { id: row.sessionId, teamId }, signal);
}

/** One that resists must not keep the others: it is logged, and tried again by the next sweep. */
async function countDone<Row extends { id: string }>(
  deps: ActivityDeps,
  rows: Row[],
  work: (row: Row) => Promise<unknown>,
): Promise<number> {
  let done = 0;
  for (const row of rows) {
    try {
      if ((await work(row)) !== false) done += 1;
    } catch (error) {
      deps.logger.error({ id: row.id, err: error }, 'could not be reaped');
    }
  }
  return done;
}

/** A provider that is away must not keep the others from their sweep. */
async function sweepProvider(deps: ActivityDeps, provider: SandboxProvider, signal: AbortSignal): Promise<number> {
  try {
    const strays = await sweepSandboxes(deps, provider, signal);
    return strays + (await sweepSnapshots(deps, provider, signal));
  } catch (error) {
    if (signal.aborted) throw error;
    deps.logger.error({ provider: provider.name, err: error }, 'a provider could not be swept');
    return 0;
  }
}

async function sweepSandboxes(deps: ActivityDeps, provider: SandboxProvider, signal: AbortSignal): Promise<number> {
  let strays = 0;
  for await (const page of paged(provider.list(deps.sandboxOwner, signal))) {
    const ids = page.flatMap(({ labels }) => labels['sandbox'] ?? []);
    const known = await findKnownSandboxes(deps.pool, provider.name, { ids, refIds: page.map(({ ref }) => ref.id) });
    strays += await countDone(
      deps,
      page.map((info) => ({ id: info.ref.id, info })),
      ({ info }) => sweepOne(deps, provider, info, known, signal),
    );
  }
  return strays;
}

/** Destroys what no row wants any more, and puts to sleep what its row says sleeps. True: it was a stray. */
async function sweepOne(
  deps: ActivityDeps,
  provider: SandboxProvider,
  info: SandboxInfo,
  known: KnownSandbox[],
  signal: AbortSignal,
): Promise<boolean> {
  const own = info.labels['sandbox'];
  const row =
    known.find(({ refId }) => refId === info.ref.id) ?? known.find(({ id, refId }) => id === own && refId === null);
  if (row !== undefined && row.state !== 'destroyed') {
    if (row.state === 'paused' && info.state === 'running') await actWhenIdle(deps, row, 'awake', signal);
    return false;
  }
  // With a row that ended there is nobody left to claim it; without one, somebody may be about to write it.
  if (row === undefined && info.createdAtMs > Date.now() - STRAY_AGE_MS) return false;
  await provider.destroy(info.ref, signal);
  return true;
}

async function sweepSnapshots(deps: ActivityDeps, provider: SandboxProvider, signal: AbortSignal): Promise<number> {
  if (!(await provider.capabilities()).snapshot) return 0;
  let strays = 0;
  for await (const page of paged<SnapshotInfo>(provider.listSnapshots(deps.sandboxOwner, signal))) {
    const known = await findKnownSnapshots(
      deps.pool,
      provider.name,
      page.map(({ ref }) => ref.id),
    );
    const left = page.filter(({ ref, createdAtMs }) => !known.has(ref.id) && createdAtMs < Date.now() - STRAY_AGE_MS);
    strays += await countDone(
      deps,
      left.map(({ ref }) => ({ id: ref.id, ref })),
      ({ ref }) => provider.deleteSnapshot(ref, signal),
    );
  }
  return strays;
}

async function deleteLeftSnapshots(deps: ActivityDeps, signal: AbortSignal): Promise<void> {
  await countDone(deps, await listLeftSnapshots(deps.pool, BATCH), async ({ id, provider, ref }) => {
    await deps.sandboxProvider(provider).deleteSnapshot(ref, signal);
    await forgetSnapshot(deps.pool, id);
  });
  const { environmentSnapshotTtlMs: ttlMs, environmentSnapshots: keep } = LIMITS;
  const bounds = { ttlMs, keep, restMs: STRAY_AGE_MS, limit: BATCH };
  // What is not deleted here, because somebody dies or its provider is away, is a stray of the next sweep: no row knows it.
  const old = await takeOldEnvironmentSnapshots(deps.pool, deps.sandboxOwner, bounds);
  await countDone(
    deps,
    old.map((row) => ({ ...row, id: row.ref.id })),
    ({ provider, ref }) => deps.sandboxProvider(provider).deleteSnapshot(ref, signal),
  );
}

/** Pages, so that the record is asked about many at once and never about all. */
async function* paged<T>(items: AsyncIterable<T>): AsyncIterable<T[]> {
  let page: T[] = [];
  for await (const item of items) {
    page.push(item);
    if (page.length < BATCH) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}
