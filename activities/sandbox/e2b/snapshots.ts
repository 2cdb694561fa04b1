import type { SnapshotRef } from '../port.ts';
import { ownSnapshots, snapshotName } from './metadata.ts';
import { connection, loadSdk, type E2bOptions } from './sdk.ts';

const PAGE = 100;
const MOST = 10_000;

interface Saving {
  options: E2bOptions;
  sandboxId: string;
  owner: string;
  key: string;
}

/** As with sandboxes: looked for by name before and after, and the oldest counts. */
export async function snapshotOnce(saving: Saving): Promise<SnapshotRef> {
  const { options, owner, key } = saving;
  const { Sandbox } = await loadSdk(options);
  const [known] = await allSnapshots(options, owner, key);
  if (known !== undefined) return refOf(known.id);
  const name = snapshotName(owner, key, Date.now());
  const { snapshotId } = await Sandbox.createSnapshot(saving.sandboxId, { ...connection(options), name });
  const [first] = await allSnapshots(options, owner, key);
  const id = first?.id ?? snapshotId;
  if (id !== snapshotId) await Sandbox.deleteSnapshot(snapshotId, connection(options));
  return refOf(id);
}

/** E2B does not tell how large they are. */
function refOf(id: string): SnapshotRef {
  return { provider: 'e2b', id, sizeBytes: 0, meta: {} };
}

/** The owner's, or those of one key; the oldest first. */
export async function allSnapshots(
  options: E2bOptions,
  owner: string,
  key?: string,
): Promise<ReturnType<typeof ownSnapshots>> {
  const { Sandbox } = await loadSdk(options);
  const pages = Sandbox.listSnapshots({ ...connection(options), limit: PAGE });
  const all: { snapshotId: string; names: string[] }[] = [];
  while (pages.hasNext && all.length < MOST) all.push(...(await pages.nextItems()));
  return ownSnapshots(all, owner, key);
}
