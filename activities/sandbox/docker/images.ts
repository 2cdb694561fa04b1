import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SnapshotInfo, SnapshotRef } from '../port.ts';
import { hashOf, LABELS, type Inspected } from './container.ts';
import { type Engine, engineError } from './engine.ts';

export type PullPolicy = 'always' | 'missing' | 'never';

const SNAPSHOT = 'longhaul-snapshot';
const SNAPSHOT_ID = /^longhaul-snapshot:[0-9a-f]{32}$/;
/** Snapshots that were deleted while a sandbox still ran from them. */
const RETIRED = 'longhaul-retired';
/** Engines refuse images of more than 125 layers; each snapshot of a restored sandbox adds one. */
const MOST_LAYERS = 100;

interface ImageDetails {
  Id: string;
  Size: number;
  Created: string;
  RootFS?: { Layers?: string[] };
}

/** Gets an image from its registry; the engine reports what went wrong inside a 200. */
export async function pullImage(engine: Engine, image: string, signal: AbortSignal): Promise<void> {
  const { body } = await engine.open('POST', '/images/create', {
    signal,
    query: { fromImage: tagged(image) },
    ok: [200],
  });
  let rest = '';
  for await (const piece of body) {
    rest += String(piece);
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const told = line.trim() === '' ? {} : (JSON.parse(line) as { error?: string });
      if (told.error !== undefined) throw engineError(/not found|denied/i.test(told.error) ? 404 : 500, told.error);
    }
  }
}

/** Without a tag the engine would get all tags of a name. */
function tagged(image: string): string {
  return image.includes('@') || image.slice(image.lastIndexOf('/') + 1).includes(':') ? image : `${image}:latest`;
}

export async function findImage(engine: Engine, image: string, signal: AbortSignal): Promise<ImageDetails | null> {
  const route = `/images/${encodeURIComponent(image)}/json`;
  const { status, body } = await engine.json<ImageDetails>('GET', route, { signal, ok: [200, 404] });
  return status === 404 ? null : body;
}

export function requireSnapshotId(id: string): string {
  if (SNAPSHOT_ID.test(id)) return id;
  throw new LonghaulError('sandbox_invalid', 'is no docker snapshot', { field: 'snapshot' });
}

export function snapshotId(owner: string, key: string): string {
  return `${SNAPSHOT}:${hashOf(owner, key).slice(0, 32)}`;
}

/** The container's files as an image under the name of the key; what has that name already is the answer. */
export async function takeSnapshot(
  engine: Engine,
  container: Inspected,
  owner: string,
  key: string,
  signal: AbortSignal,
): Promise<SnapshotRef> {
  const id = snapshotId(owner, key);
  const known = await findImage(engine, id, signal);
  if (known !== null) return snapshotRef(id, known);
  const [repo = '', tag = ''] = id.split(':');
  const labels = { [LABELS.snapshotOwner]: owner, [LABELS.snapshotKey]: hashOf(owner, key) };
  const base = await findImage(engine, container.Image, signal);
  if ((base?.RootFS?.Layers?.length ?? 0) < MOST_LAYERS) {
    const query = { container: container.Id, repo, tag, pause: 'true' };
    await engine.json('POST', '/commit', { signal, query, body: { Labels: labels }, ok: [201] });
  } else {
    await flatten(engine, container.Id, { repo, tag, labels }, signal);
  }
  // Of two that were made at once, the first lost the name.
  const filters = JSON.stringify({ dangling: ['true'], label: [`${LABELS.snapshotKey}=${hashOf(owner, key)}`] });
  await engine.json('POST', '/images/prune', { signal, query: { filters }, ok: [200, 409] });
  const made = await findImage(engine, id, signal);
  if (made === null) throw new LonghaulError('sandbox_unavailable', 'the snapshot is gone again');
  return snapshotRef(id, made);
}

/** All files as one layer. */
async function flatten(
  engine: Engine,
  container: string,
  image: { repo: string; tag: string; labels: Record<string, string> },
  signal: AbortSignal,
): Promise<void> {
  const { body } = await engine.open('GET', `/containers/${container}/export`, { signal, ok: [200] });
  const changes = Object.entries(image.labels).map(([name, value]) => `LABEL ${name}=${JSON.stringify(value)}`);
  const query = { fromSrc: '-', repo: image.repo, tag: image.tag, changes: changes.join('\n') };
  await engine.json('POST', '/images/create', { signal, query, body, ok: [200] });
}

function snapshotRef(id: string, image: ImageDetails): SnapshotRef {
  return { provider: 'docker', id, sizeBytes: image.Size, meta: { image: image.Id } };
}

export async function deleteSnapshot(engine: Engine, id: string, signal: AbortSignal): Promise<boolean> {
  const route = `/images/${encodeURIComponent(requireSnapshotId(id))}`;
  const ok = [200, 404, 409];
  const { status } = await engine.json('DELETE', route, { signal, ok });
  if (status !== 409) return status === 200;
  // A sandbox runs from it: the name goes now, the files with the sandbox.
  const retired = { repo: RETIRED, tag: id.split(':')[1] ?? '' };
  const tag = await engine.json('POST', `${route}/tag`, { signal, query: retired, ok: [201, 404] });
  if (tag.status === 404) return false;
  return (await engine.json('DELETE', route, { signal, ok: [200, 404] })).status === 200;
}

interface ImageEntry {
  Id: string;
  Created: number;
  Size: number;
  RepoTags: string[] | null;
  Labels: Record<string, string> | null;
}

async function listImages(engine: Engine, filters: object, signal: AbortSignal): Promise<ImageEntry[]> {
  const query = { filters: JSON.stringify(filters) };
  return (await engine.json<ImageEntry[]>('GET', '/images/json', { signal, query, ok: [200] })).body ?? [];
}

export async function* listSnapshots(engine: Engine, owner: string, signal: AbortSignal): AsyncIterable<SnapshotInfo> {
  const label = [`${LABELS.snapshotOwner}=${owner}`];
  for (const image of await listImages(engine, { label }, signal)) {
    for (const id of image.RepoTags ?? []) {
      // Images made from a snapshot by others have its labels too, and other names.
      if (SNAPSHOT_ID.test(id)) {
        const ref: SnapshotRef = { provider: 'docker', id, sizeBytes: image.Size, meta: { image: image.Id } };
        yield { ref, owner, createdAtMs: image.Created * 1_000 };
      }
    }
  }
}

/** Removes deleted snapshots that no sandbox runs from any more. */
export async function sweepRetired(engine: Engine, signal: AbortSignal): Promise<void> {
  for (const image of await listImages(engine, { reference: [RETIRED] }, signal)) {
    for (const id of image.RepoTags ?? []) {
      if (!id.startsWith(`${RETIRED}:`)) continue;
      await engine.json('DELETE', `/images/${encodeURIComponent(id)}`, { signal, ok: [200, 404, 409] });
    }
  }
}
