import { createHash } from 'node:crypto';
import type { SandboxInfo, SandboxSpec } from '../port.ts';

/** A sandbox's metadata is all that E2B keeps for us: who made it, for what, and how commands run in it. */
const OWNER = 'longhaul.owner';
const KEY = 'longhaul.key';
const CREATED = 'longhaul.created';
const SETTINGS = 'longhaul.settings';
const LABEL = 'longhaul.label.';

/** What commands need to know of the specification; no secrets. */
export interface Settings {
  env: Record<string, string>;
  diskBytes: number;
  ttlMs: number;
}

export function metadataOf(spec: SandboxSpec, key: string): Record<string, string> {
  const settings: Settings = { env: spec.env, diskBytes: spec.diskBytes, ttlMs: spec.ttlMs };
  const labels = Object.entries(spec.labels).map(([name, value]) => [LABEL + name, value]);
  return {
    ...filterOf(spec.owner, key),
    [CREATED]: String(Date.now()),
    [SETTINGS]: JSON.stringify(settings),
    ...Object.fromEntries(labels),
  };
}

/** What a list is asked for. */
export function filterOf(owner: string, key?: string): Record<string, string> {
  return { [OWNER]: owner, ...(key === undefined ? {} : { [KEY]: key }) };
}

export function settingsOf(metadata: Record<string, string>): Settings {
  const given = JSON.parse(metadata[SETTINGS] ?? '{}') as Partial<Settings>;
  return { env: given.env ?? {}, diskBytes: given.diskBytes ?? 0, ttlMs: given.ttlMs ?? 0 };
}

/** null: it is not one of ours. */
export function infoOf(sandbox: {
  sandboxId: string;
  state: string;
  metadata: Record<string, string>;
  startedAt: Date;
  endAt: Date;
}): SandboxInfo | null {
  const { metadata } = sandbox;
  const owner = metadata[OWNER];
  if (owner === undefined) return null;
  const labels = Object.entries(metadata).filter(([name]) => name.startsWith(LABEL));
  return {
    ref: { provider: 'e2b', id: sandbox.sandboxId, meta: {} },
    state: sandbox.state === 'paused' ? 'paused' : 'running',
    owner,
    labels: Object.fromEntries(labels.map(([name, value]) => [name.slice(LABEL.length), value])),
    createdAtMs: Number(metadata[CREATED] ?? sandbox.startedAt.getTime()),
    expiresAtMs: sandbox.endAt.getTime(),
  };
}

/** Snapshots have a name only, so the name says it all: owner, key, and when it was asked for. */
export function snapshotName(owner: string, key: string, nowMs: number): string {
  return `lh-${short(owner, 12)}-${short(key, 24)}-${nowMs.toString(36)}`;
}

interface NamedSnapshot {
  id: string;
  name: string;
  createdAtMs: number;
}

/** The snapshots among `all` that are the owner's and, if given, of that key; the oldest first. */
export function ownSnapshots(
  all: readonly { snapshotId: string; names: string[] }[],
  owner: string,
  key?: string,
): NamedSnapshot[] {
  const wanted = new RegExp(
    `lh-${short(owner, 12)}-${key === undefined ? '[0-9a-f]{24}' : short(key, 24)}-([0-9a-z]+)`,
  );
  const found = all.flatMap(({ snapshotId, names }) => {
    const match = names.map((name) => wanted.exec(name)).find((each) => each !== null);
    return match === undefined || match === null
      ? []
      : [{ id: snapshotId, name: match[0], createdAtMs: Number.parseInt(match[1] ?? '0', 36) }];
  });
  return found.toSorted((a, b) => a.createdAtMs - b.createdAtMs || (a.id < b.id ? -1 : 1));
}

function short(text: string, length: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, length);
}
