import { setTimeout as delay } from 'node:timers/promises';
import type { Daytona, Sandbox } from '@daytonaio/sdk';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxRef, SnapshotInfo, SnapshotRef } from '../port.ts';
import type { DaytonaClient } from './client.ts';
import { statusOf } from './errors.ts';
import { phaseOf } from './state.ts';
import { LABEL, snapshotName, snapshotPrefix } from './spec.ts';

type VendorSnapshot = Awaited<ReturnType<Daytona['snapshot']['get']>>;

const GIB = 1024 ** 3;
const PAGE = 100;
const SAVE_S = 10 * 60;
const POLL_MS = 500;

function refOf(provider: string, snapshot: VendorSnapshot): SnapshotRef {
  const sizeBytes = Math.round((snapshot.size ?? 0) * GIB);
  return { provider, id: snapshot.name, sizeBytes, meta: {} };
}

async function find(daytona: Daytona, name: string): Promise<VendorSnapshot | null> {
  try {
    return await daytona.snapshot.get(name);
  } catch (error) {
    if (statusOf(error) === 404) return null;
    throw error;
  }
}

/** The vendor keeps the names of an organisation's snapshots apart, so the same key gives the same one. */
export async function saveSnapshot(
  client: DaytonaClient,
  ref: SandboxRef,
  key: string,
  signal: AbortSignal,
): Promise<SnapshotRef> {
  const sandbox = await client.require(ref, signal);
  const name = snapshotName(sandbox.labels[LABEL.owner] ?? '', sandbox.name, key);
  return client.ask('save the sandbox', signal, async (daytona) => {
    const deadlineMs = Date.now() + SAVE_S * 1_000;
    for (;;) {
      const found = await find(daytona, name);
      if (found?.state === 'active') return refOf(ref.provider, found);
      if (found?.state === 'error' || found?.state === 'build_failed') {
        await daytona.snapshot.delete(found);
        throw new LonghaulError('sandbox_unavailable', `the snapshot failed: ${found.errorReason ?? found.state}`);
      }
      if (Date.now() > deadlineMs) throw new LonghaulError('sandbox_unavailable', 'the snapshot takes too long');
      if (found === null && (await isIdle(sandbox))) await begin(sandbox, name);
      else await delay(POLL_MS);
      signal.throwIfAborted();
    }
  });
}

/** Whether nobody saves it at this moment: the snapshot that comes may be the one that is wanted. */
async function isIdle(sandbox: Sandbox): Promise<boolean> {
  await sandbox.refreshData();
  const phase = phaseOf(sandbox.state);
  if (phase === 'broken' || phase === 'gone') {
    throw new LonghaulError(
      'sandbox_lost',
      `the sandbox is ${sandbox.state}: ${sandbox.errorReason ?? 'no reason given'}`,
    );
  }
  return sandbox.state !== 'snapshotting';
}

async function begin(sandbox: Sandbox, name: string): Promise<void> {
  try {
    await sandbox.createSnapshot(name, SAVE_S);
  } catch (error) {
    // Another worker asked for the same, or for another one, at the same moment.
    if (statusOf(error) !== 409) throw error;
  }
}

export function deleteSnapshot(client: DaytonaClient, snapshot: SnapshotRef, signal: AbortSignal): Promise<boolean> {
  return client.ask('delete the snapshot', signal, async (daytona) => {
    const found = await find(daytona, snapshot.id);
    if (found === null || found.state === 'removing') return false;
    try {
      await daytona.snapshot.delete(found);
      return true;
    } catch (error) {
      if (statusOf(error) === 404) return false;
      throw error;
    }
  });
}

export async function* listSnapshots(
  client: DaytonaClient,
  provider: string,
  owner: string,
  signal: AbortSignal,
): AsyncIterable<SnapshotInfo> {
  const prefix = snapshotPrefix(owner);
  for (let page = 1; ; page += 1) {
    const { items, totalPages } = await client.ask('list snapshots', signal, (daytona) =>
      daytona.snapshot.list(page, PAGE),
    );
    for (const each of items) {
      if (!each.name.startsWith(prefix) || each.state === 'removing') continue;
      yield { ref: refOf(provider, each), owner, createdAtMs: new Date(each.createdAt).getTime() };
    }
    if (page >= totalPages) return;
  }
}
