import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import { forgetSnapshot, getSandbox, updateSandbox } from '../../db/queries/sandboxes.ts';
import { listSnapshotsOf } from '../../db/queries/sandbox-reaping.ts';
import type { ActivityDeps } from '../deps.ts';
import { closeEgress } from './egress.ts';

/** Ends a sandbox: processes and files, then its row, then the broker's listener. What a crash leaves is the reaper's. */
export async function releaseSandbox(
  deps: ActivityDeps,
  { id }: Pick<SandboxRow, 'id'>,
  signal: AbortSignal,
): Promise<void> {
  const row = await getSandbox(deps.pool, id);
  if (row === undefined) return;
  // A creation under way finds the row destroyed and takes back what it made.
  if (row.ref !== null) await deps.sandboxProvider(row.provider).destroy(row.ref, signal);
  await updateSandbox(deps.pool, id, 'destroyed', 0);
  // One that was recorded just before that thinks it is wanted.
  const late = row.ref === null ? ((await getSandbox(deps.pool, id))?.ref ?? null) : null;
  if (late !== null) await deps.sandboxProvider(row.provider).destroy(late, signal);
  if (row.egressOpen) await closeEgress(deps, id, signal);
}

/** Deletes what was saved of a session's files. */
export async function deleteSnapshots(deps: ActivityDeps, sessionId: string, signal: AbortSignal): Promise<void> {
  for (const { id, provider, ref } of await listSnapshotsOf(deps.pool, sessionId)) {
    await deps.sandboxProvider(provider).deleteSnapshot(ref, signal);
    await forgetSnapshot(deps.pool, id);
  }
}
