import { LonghaulError } from '../../contracts/error-codes.ts';
import { useEnvironmentSnapshot, deleteEnvironmentSnapshot } from '../../db/queries/environment-snapshots.ts';
import { listSnapshotsOf } from '../../db/queries/sandbox-reaping.ts';
import type { SandboxRow, SandboxStart } from '../../db/queries/sandboxes.ts';
import { addNote, forgetSnapshot, recordCreated, recordStart } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { answerWithin } from './abort.ts';
import { prepareSessionCredentials } from './credentials.ts';
import { settleNetwork, trustBundle } from './egress.ts';
import { cloudEnvironment, hasSetup, setupHash, specOf } from './environment.ts';
import { controlsOf } from './network.ts';
import type { SandboxCapabilities, SandboxNetwork, SandboxProvider, SandboxRef } from './port.ts';

/** An image may have to be fetched, or files restored. */
const MAKING_MS = 20 * 60_000;
/** Steps that a saved set-up has behind it. */
const STEPS_OF_SETUP = ['packages', 'setup', 'saved'] as const;
/** Steps after the creation, in order. */
export const STEPS = [...STEPS_OF_SETUP, 'repositories'] as const;

interface Made {
  ref: SandboxRef;
  network: SandboxNetwork;
}

/**
 * Makes the sandbox of a row: credentials first, so that nothing in it ever waits for its placeholders, then what it is
 * made from, written down, then the sandbox under the row's id as key. null: the row was given up meanwhile.
 */
export async function createSandbox(
  deps: ActivityDeps,
  session: SessionForTurn,
  row: SandboxRow,
  provider: SandboxProvider,
  signal: AbortSignal,
): Promise<Made | null> {
  await prepareSessionCredentials(deps, session.id);
  const capabilities = await provider.capabilities();
  const network = await settleNetwork(deps, row, capabilities, cloudEnvironment(session), signal);
  const start = row.start ?? (await savedSetup(deps, session, capabilities));
  if (row.start === null && start !== null) await recordStart(deps.pool, row.id, start);
  const trustBundleFile = trustBundle(deps, network);
  const make = (from: SandboxStart | null): Promise<SandboxRef> => {
    const made = { sandboxId: row.id, network, snapshot: from?.ref, trustBundleFile };
    return provider.create(specOf(deps, session, made), row.id, answerWithin(signal, MAKING_MS));
  };
  let from = start;
  let ref: SandboxRef;
  try {
    ref = await make(from);
  } catch (error) {
    if (from === null || !isMissingSnapshot(error)) throw error;
    await forgetStart(deps, row, from);
    from = null;
    ref = await make(null);
  }
  const steps = from === null ? [] : from.kind === 'session' ? [...STEPS] : [...STEPS_OF_SETUP];
  const controls = controlsOf(capabilities, network);
  const isOurs = await recordCreated(deps.pool, row.id, { ref, network, controls, steps });
  if (isOurs && from?.ref.note !== undefined) await addNote(deps.pool, row.id, from.ref.note);
  if (isOurs) return { ref, network };
  await provider.destroy(ref, signal);
  return null;
}

/** Packages and set-up of an earlier sandbox, where the provider can save them. */
async function savedSetup(
  deps: ActivityDeps,
  session: SessionForTurn,
  capabilities: SandboxCapabilities,
): Promise<SandboxStart | null> {
  const environment = cloudEnvironment(session);
  if (!capabilities.snapshot || !hasSetup(environment)) return null;
  const hash = setupHash(session, await prepareSessionCredentials(deps, session.id));
  const ref = await useEnvironmentSnapshot(deps.pool, {
    hash,
    provider: environment.provider,
    owner: deps.sandboxOwner,
  });
  return ref === null ? null : { kind: 'environment', hash, ref };
}

/** A snapshot may be gone (somebody deleted it at the provider): then the sandbox begins without it. */
function isMissingSnapshot(error: unknown): boolean {
  return error instanceof LonghaulError && error.code === 'sandbox_not_found';
}

async function forgetStart(deps: ActivityDeps, row: SandboxRow, start: SandboxStart): Promise<void> {
  deps.logger.warn({ sandboxId: row.id, snapshotId: start.ref.id }, 'a snapshot is gone, beginning without it');
  await recordStart(deps.pool, row.id, null);
  if (start.kind === 'environment') {
    const place = { hash: start.hash, provider: row.provider, owner: deps.sandboxOwner };
    await deleteEnvironmentSnapshot(deps.pool, place, start.ref.id);
    return;
  }
  await addNote(deps.pool, row.id, 'The saved files could not be used: what you had written is gone.');
  await forgetSessionSnapshots(deps, row.sessionId, start.ref.id);
}

async function forgetSessionSnapshots(deps: ActivityDeps, sessionId: string, snapshotId: string): Promise<void> {
  for (const { id, ref } of await listSnapshotsOf(deps.pool, sessionId)) {
    if (ref.id === snapshotId) await forgetSnapshot(deps.pool, id);
  }
}
