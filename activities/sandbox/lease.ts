import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import { currentSandbox, insertSandbox, lockSandboxOf, updateSandbox } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import type { SandboxProvider, SandboxRef, SandboxSpec } from './port.ts';

/** A sandbox ready for commands. */
export interface Lease {
  id: string;
  ref: SandboxRef;
  provider: SandboxProvider;
}

interface Held {
  lease: Promise<Lease>;
  sinceMs: number;
}

/** Leases renewed less than this ago are not renewed again: a provider call and a row per command would be waste. */
const RENEW_MS = 60_000;
const heldBy = new WeakMap<ActivityDeps, Map<string, Held>>();

/**
 * The session's sandbox, made on first use and woken when it was paused or its processes died. Concurrent calls of one
 * session share one answer here; across workers the row and the provider's idempotent creation make them agree.
 */
export async function leaseSandbox(deps: ActivityDeps, session: SessionForTurn, signal: AbortSignal): Promise<Lease> {
  const held = heldBy.get(deps) ?? new Map<string, Held>();
  heldBy.set(deps, held);
  const known = held.get(session.id);
  if (known !== undefined && known.sinceMs > Date.now() - RENEW_MS) return known.lease;
  for (const [key, { sinceMs }] of held) if (sinceMs < Date.now() - RENEW_MS) held.delete(key);
  const entry = { lease: acquire(deps, session, signal), sinceMs: Date.now() };
  held.set(session.id, entry);
  try {
    return await entry.lease;
  } catch (error) {
    if (held.get(session.id) === entry) held.delete(session.id);
    throw error;
  }
}

/** The next lease asks the provider again. */
export function forgetLease(deps: ActivityDeps, sessionId: string): void {
  heldBy.get(deps)?.delete(sessionId);
}

async function acquire(deps: ActivityDeps, session: SessionForTurn, signal: AbortSignal): Promise<Lease> {
  const provider = deps.sandboxProvider(providerOf(session));
  for (;;) {
    const row = await rowOf(deps, session, provider.name);
    // A row without a reference is new, or a creation that a crash cut short: the same key finishes it.
    const ref = row.ref ?? (await provider.create(specOf(deps, session), row.id, signal));
    const info = await provider.get(ref, signal);
    if (info === null) {
      await updateSandbox(deps.pool, row.id, 'destroyed', 0);
      continue;
    }
    if (info.state !== 'running') await provider.resume(ref, signal);
    if (row.ref !== null) await provider.extend(ref, LIMITS.sandboxLeaseMs, signal);
    await updateSandbox(deps.pool, row.id, 'running', LIMITS.sandboxLeaseMs, ref);
    return { id: row.id, ref, provider };
  }
}

/** The row comes before the sandbox, so that a crash in between leaves a trace for the reaper. */
async function rowOf(deps: ActivityDeps, session: SessionForTurn, provider: string): Promise<SandboxRow> {
  const known = await currentSandbox(deps.pool, session.id);
  if (known !== undefined) return known;
  return withTransaction(deps.pool, async (tx) => {
    await lockSandboxOf(tx, session.id);
    const other = await currentSandbox(tx, session.id);
    if (other !== undefined) return other;
    const id = newId('sandbox');
    const leaseMs = LIMITS.sandboxLeaseMs;
    const generation = await insertSandbox(tx, { id, sessionId: session.id, provider, leaseMs });
    return { id, sessionId: session.id, generation, provider, ref: null, state: 'creating' as const };
  });
}

function providerOf(session: SessionForTurn): string {
  if (session.environment.type === 'cloud') return session.environment.provider;
  throw new LonghaulError('sandbox_invalid', 'a self_hosted environment runs no tools here');
}

function specOf(deps: ActivityDeps, session: SessionForTurn): SandboxSpec {
  return {
    owner: deps.sandboxOwner,
    labels: { session: session.id, team: session.teamId },
    env: {},
    memoryBytes: LIMITS.sandboxMemoryBytes,
    diskBytes: LIMITS.sandboxDiskBytes,
    pids: LIMITS.sandboxPids,
    cpus: LIMITS.sandboxCpus,
    ttlMs: LIMITS.sandboxLeaseMs,
  };
}
