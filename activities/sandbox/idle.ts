import { anyAbort } from '../../contracts/abort.ts';
import type { Queryable } from '../../db/pool.ts';
import { withLongTransaction, withTransaction } from '../../db/pool.ts';
import { appendEvents } from '../../db/queries/events.ts';
import type { IdleAct, SandboxRow } from '../../db/queries/sandboxes.ts';
import {
  findDue,
  getSandbox,
  hasExpired,
  lockSandboxOf,
  recordEgress,
  recordSnapshot,
  updateSandbox,
} from '../../db/queries/sandboxes.ts';
import { loadSessionForTurn, lockSession } from '../../db/queries/session-status.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { closeEgress } from './egress.ts';
import { forgetLease } from './lease.ts';
import { mountSteps } from './mounts.ts';
import { releaseSandbox } from './release.ts';

/** Whoever wants to wake it waits meanwhile. Saving copies files; the rest is short. */
const ACT_MS = { pause: 25_000, expired: 25_000, awake: 25_000, snapshot: 90_000, destroy: 100_000 } as const;
/** Postgres ends transactions that are idle for longer. */
const KEEP_LOCK_MS = 10_000;

/**
 * `expired`: nobody has renewed its lease, whatever its session does. `awake`: it runs, and its row says that it sleeps;
 * somebody was killed between the two.
 */
type Reason = IdleAct | 'expired' | 'awake';

/**
 * Does what the idle policy of an environment asks for, if it still does. Neither a wake-up nor the start of an effect gets
 * between the check and the end: waking waits for the lock, and an effect that starts meanwhile finds the row asleep.
 * Returns false when there was nothing to do.
 */
export async function actWhenIdle(
  deps: ActivityDeps,
  { id, sessionId }: Pick<SandboxRow, 'id' | 'sessionId'>,
  reason: Reason,
  given: AbortSignal,
): Promise<boolean> {
  return withLongTransaction(deps.pool, async (lock) => {
    await lockSandboxOf(lock, sessionId);
    const row = await claim(deps, { id, sessionId }, reason);
    if (row === undefined) return false;
    forgetLease(deps, sessionId);
    const session = await loadSessionForTurn(deps.pool, sessionId);
    const lost = new AbortController();
    const signal = anyAbort([given, lost.signal, AbortSignal.timeout(ACT_MS[reason])]);
    // Without the lock somebody may wake it: then this must stop.
    const keep = (): Promise<unknown> => lock.query('SELECT 1').catch((error: unknown) => lost.abort(error));
    const keeping = setInterval(() => void keep(), KEEP_LOCK_MS);
    try {
      await act(deps, session, row, reason, signal);
    } catch (error) {
      // It goes on as it was, and is due again at the next sweep.
      if (row.state !== 'paused') await restore(deps, row);
      throw error;
    } finally {
      clearInterval(keeping);
    }
    return true;
  });
}

/** Marks it asleep, so that nothing begins in it, when it is still due. */
async function claim(
  deps: ActivityDeps,
  { id, sessionId }: { id: string; sessionId: string },
  reason: Reason,
): Promise<SandboxRow | undefined> {
  return withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, sessionId);
    const due = await dueFor(tx, id, reason);
    if (due !== undefined) await updateSandbox(tx, id, 'paused', 0);
    return due;
  });
}

async function dueFor(tx: Queryable, id: string, reason: Reason): Promise<SandboxRow | undefined> {
  if (reason === 'expired') return (await hasExpired(tx, id)) ? getSandbox(tx, id) : undefined;
  if (reason !== 'awake') return findDue(tx, reason, id);
  const row = await getSandbox(tx, id);
  return row?.state === 'paused' ? row : undefined;
}

async function restore(deps: ActivityDeps, row: SandboxRow): Promise<void> {
  await updateSandbox(deps.pool, row.id, row.state, 0);
}

async function act(
  deps: ActivityDeps,
  session: SessionForTurn,
  row: SandboxRow,
  reason: Reason,
  signal: AbortSignal,
): Promise<void> {
  switch (reason) {
    case 'pause':
    case 'expired':
    case 'awake':
      return pause(deps, session, row, signal);
    case 'snapshot':
      return save(deps, row, signal);
    case 'destroy':
      return destroy(deps, session, row, signal);
  }
}

async function pause(deps: ActivityDeps, session: SessionForTurn, row: SandboxRow, signal: AbortSignal): Promise<void> {
  const keepMemory = session.environment.type === 'cloud' && session.environment.idle.keep_memory;
  let canKeep = false;
  if (row.ref !== null) {
    const provider = deps.sandboxProvider(row.provider);
    canKeep = keepMemory && (await provider.capabilities()).pause === 'memory';
    await provider.pause(row.ref, signal, canKeep ? { keepMemory: true } : {});
    // Frozen processes keep their connections; else the network is gone with the last of them.
    if (!canKeep && row.egressOpen) await silence(deps, row, signal);
  }
  await tellIdle(deps, row, 'session.sandbox_paused', { keeps_memory: canKeep });
}

/** The broker stops listening, as far as it can be told: its listener is in a network that is gone. */
async function silence(deps: ActivityDeps, row: SandboxRow, signal: AbortSignal): Promise<void> {
  try {
    await closeEgress(deps, row.id, signal);
  } catch (error) {
    deps.logger.warn({ sandboxId: row.id, err: error }, 'the egress broker could not be told of a pause');
    await recordEgress(deps.pool, row.id, { point: null, open: true });
  }
}

/** What it replaces is deleted: one saved state a session. */
async function save(deps: ActivityDeps, row: SandboxRow, signal: AbortSignal): Promise<void> {
  if (row.ref === null) return;
  const provider = deps.sandboxProvider(row.provider);
  if (!(await provider.capabilities()).snapshot) return;
  const key = `session-${row.id}-${row.idleSince?.getTime() ?? 0}`;
  const ref = await provider.snapshot(row.ref, key, signal);
  const older = await recordSnapshot(deps.pool, row.id, { ...ref, mounted: mountSteps(row.steps) });
  if (row.snapshot !== null && row.snapshot.id !== ref.id) older.push({ provider: row.provider, ref: row.snapshot });
  // The reaper finds what a crash leaves here: no row names it.
  for (const old of older) await deps.sandboxProvider(old.provider).deleteSnapshot(old.ref, signal);
  // Saving may have woken it; a sandbox that was running stays so.
  await updateSandbox(deps.pool, row.id, row.state, 0);
  await tellIdle(deps, row, 'session.sandbox_saved', { size_bytes: ref.sizeBytes });
}

/** Where the environment wants files saved, they are before they go. */
async function destroy(
  deps: ActivityDeps,
  session: SessionForTurn,
  row: SandboxRow,
  signal: AbortSignal,
): Promise<void> {
  const wantsSaved = session.environment.type === 'cloud' && session.environment.idle.snapshot_after_seconds !== null;
  const isSaved = row.snapshotAt !== null && row.idleSince !== null && row.snapshotAt >= row.idleSince;
  if (wantsSaved && !isSaved && row.preparedAt !== null) await save(deps, row, signal);
  await releaseSandbox(deps, row, signal);
  await tellIdle(deps, row, 'session.sandbox_released', { saved: wantsSaved });
}

async function tellIdle(
  deps: ActivityDeps,
  row: SandboxRow,
  type: string,
  payload: Record<string, unknown>,
): Promise<void> {
  await withTransaction(deps.pool, (tx) =>
    appendEvents(tx, row.sessionId, [
      {
        type,
        dedupeKey: `sandbox/${row.id}/${type}/${row.idleSince?.getTime() ?? 0}`,
        payload: { sandbox_id: row.id, ...payload },
      },
    ]),
  );
}
