import { anyAbort } from '../../contracts/abort.ts';
import type { CloudEnvironment } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withLongTransaction } from '../../db/pool.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import { addNote, lockSandboxOf, recordPrepared, renewSandbox, updateSandbox } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { createSandbox } from './create.ts';
import { currentCredentials } from './credentials.ts';
import { openEgress } from './egress.ts';
import { cloudEnvironment, commandEnvironment, needsPreparation } from './environment.ts';
import { loseSandbox, sandboxRow } from './generations.ts';
import { missingMounts, mountsKey } from './mounts.ts';
import type { SandboxNetwork, SandboxProvider, SandboxRef } from './port.ts';

/** A sandbox ready for commands. */
export interface Lease {
  id: string;
  ref: SandboxRef;
  provider: SandboxProvider;
  /** Of every command: variables of the environment, placeholders, the way to the broker. */
  env: Record<string, string>;
}

export type Leased =
  | { kind: 'ready'; lease: Lease }
  /** Packages, set-up, repositories or files come first, by the activity `prepareSandbox`. */
  | { kind: 'unprepared' }
  /** It could not be prepared; this turn does not try again. */
  | { kind: 'failed'; message: string };

interface Held {
  mounts: string;
  leased: Promise<Leased>;
  sinceMs: number;
}

/** Leases renewed less than this ago are not renewed again: a provider call and a row per command would be waste. */
const RENEW_MS = 60_000;
/** Waking happens under a lock; well inside the time Postgres lets a transaction be idle. */
const WAKE_MS = 25_000;
/** Sandboxes in a row that may turn out to be gone in one attempt. */
const ACQUIRE_TRIES = 3;
/** Told to an agent whose environment wants memory kept while it sleeps, when it was not. */
const PROCESSES_LOST =
  'The sandbox slept and its memory could not be kept: files are as they were, no process you started before runs any more.';
const heldBy = new WeakMap<ActivityDeps, Map<string, Held>>();

/**
 * The session's sandbox, made on first use and woken when it was paused or its processes died. Concurrent calls of one
 * session share one answer here; across workers the row and the provider's idempotent creation make them agree.
 */
export async function leaseSandbox(deps: ActivityDeps, session: SessionForTurn, signal: AbortSignal): Promise<Leased> {
  const held = heldBy.get(deps) ?? new Map<string, Held>();
  heldBy.set(deps, held);
  const known = held.get(session.id);
  const mounts = mountsKey(session);
  if (known?.mounts === mounts && known.sinceMs > Date.now() - RENEW_MS) return known.leased;
  for (const [key, { sinceMs }] of held) if (sinceMs < Date.now() - RENEW_MS) held.delete(key);
  const entry = { leased: acquire(deps, session, signal), sinceMs: Date.now(), mounts };
  held.set(session.id, entry);
  const forget = (): void => {
    if (held.get(session.id) === entry) held.delete(session.id);
  };
  try {
    const leased = await entry.leased;
    // Only what is ready is worth remembering: the rest changes with the next turn or preparation.
    if (leased.kind !== 'ready') forget();
    return leased;
  } catch (error) {
    forget();
    throw error;
  }
}

/** The next lease asks the provider again. */
export function forgetLease(deps: ActivityDeps, sessionId: string): void {
  heldBy.get(deps)?.delete(sessionId);
}

async function acquire(deps: ActivityDeps, session: SessionForTurn, signal: AbortSignal): Promise<Leased> {
  const environment = cloudEnvironment(session);
  for (let tries = 0; tries < ACQUIRE_TRIES; tries += 1) {
    const row = await sandboxRow(deps, session, environment.provider);
    if (row.kind === 'failed') return row;
    const { sandbox } = row;
    const isNew = sandbox.preparedAt === null;
    if (isNew && needsPreparation(environment)) return { kind: 'unprepared' };
    if (missingMounts(session, sandbox).length > 0) return { kind: 'unprepared' };
    const lease = await runningSandbox(deps, session, sandbox, signal);
    if (lease === null) continue;
    if (isNew) await recordPrepared(deps.pool, sandbox.id);
    return { kind: 'ready', lease };
  }
  // The next attempt comes later, and they are counted: a provider that loses what it makes must not be asked for ever.
  throw new LonghaulError('sandbox_unavailable', `${ACQUIRE_TRIES} sandboxes were gone as soon as they were made`);
}

/** The sandbox of a row, made if it was not, running, and with its way out; null: it is gone, and its row says so now. */
export async function runningSandbox(
  deps: ActivityDeps,
  session: SessionForTurn,
  sandbox: SandboxRow,
  signal: AbortSignal,
): Promise<Lease | null> {
  const environment = cloudEnvironment(session);
  const provider = deps.sandboxProvider(sandbox.provider);
  const made =
    sandbox.ref === null
      ? await createSandbox(deps, session, sandbox, provider, signal)
      : { ref: sandbox.ref, network: (sandbox.network ?? { type: 'none' }) as SandboxNetwork };
  const keepsMemory = environment.idle.keep_memory;
  if (made === null || !(await wake(deps, sandbox, { provider, ref: made.ref, keepsMemory }, signal))) {
    await loseSandbox(deps, sandbox, signal);
    return null;
  }
  const proxyUrl = await openEgress(deps, sandbox, { provider, ...made }, signal);
  const env = await variables(deps, session, environment, proxyUrl);
  return { id: sandbox.id, ref: made.ref, provider, env };
}

async function variables(
  deps: ActivityDeps,
  session: SessionForTurn,
  environment: CloudEnvironment,
  proxyUrl: string | null,
): Promise<Record<string, string>> {
  return commandEnvironment(environment, await currentCredentials(deps, session.id), proxyUrl);
}

/** Makes it run and renews its lease; false when the provider has it no more. */
async function wake(
  deps: ActivityDeps,
  sandbox: SandboxRow,
  { provider, ref, keepsMemory }: { provider: SandboxProvider; ref: SandboxRef; keepsMemory: boolean },
  given: AbortSignal,
): Promise<boolean> {
  if (sandbox.state === 'running') {
    const signal = anyAbort([given, AbortSignal.timeout(WAKE_MS)]);
    const info = await provider.get(ref, signal);
    if (info === null) return false;
    if (info.state === 'running') {
      await provider.extend(ref, LIMITS.sandboxLeaseMs, signal);
      // It runs, unless somebody has begun to put it to sleep meanwhile.
      if (await renewSandbox(deps.pool, sandbox.id, LIMITS.sandboxLeaseMs)) return true;
    }
  }
  // Nobody puts it to sleep while it is woken.
  return withLongTransaction(deps.pool, async (tx) => {
    given.throwIfAborted();
    await lockSandboxOf(tx, sandbox.sessionId);
    const signal = anyAbort([given, AbortSignal.timeout(WAKE_MS)]);
    const info = await provider.get(ref, signal);
    if (info === null) return false;
    if (info.state !== 'running') {
      const isWhole = info.state === 'paused' && (await provider.capabilities()).pause === 'memory';
      // Before they are replaced: an attempt that dies in between has told of it.
      if (keepsMemory && !isWhole) await addNote(deps.pool, sandbox.id, PROCESSES_LOST);
      await provider.resume(ref, signal);
    }
    if (sandbox.ref !== null) await provider.extend(ref, LIMITS.sandboxLeaseMs, signal);
    await updateSandbox(tx, sandbox.id, 'running', LIMITS.sandboxLeaseMs, ref);
    return true;
  });
}
