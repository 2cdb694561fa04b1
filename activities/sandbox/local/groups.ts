import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { SandboxSpec } from '../port.ts';

const ROOT = '/sys/fs/cgroup';
const NAME = 'longhaul';
const MARKER = /^[0-9a-f]{32}$/;
const CPU_PERIOD_US = 100_000;

export interface GroupSupport {
  version: 1 | 2 | null;
  memory: boolean;
  pids: boolean;
  cpu: boolean;
  /** Commands can be stopped where they are. */
  freezer: boolean;
}

const NONE: GroupSupport = { version: null, memory: false, pids: false, cpu: false, freezer: false };
const CONTROLLERS = ['pids', 'memory', 'cpu', 'freezer'] as const;

/** Which limits the control groups of this host let us set. */
export function probeGroups(): GroupSupport {
  if (process.getuid?.() !== 0) return NONE;
  const v1 = (controller: string): boolean => canMake(path.join(ROOT, controller, NAME));
  if (existsSync(path.join(ROOT, 'memory'))) {
    return { version: 1, memory: v1('memory'), pids: v1('pids'), cpu: v1('cpu'), freezer: v1('freezer') };
  }
  const controllers = words(path.join(ROOT, 'cgroup.controllers'));
  if (controllers.length === 0 || !canMake(path.join(ROOT, NAME))) return NONE;
  enableControllers(controllers);
  // A group with processes of its own hands down nothing, and only its answer tells.
  const given = words(path.join(ROOT, NAME, 'cgroup.subtree_control'));
  const has = (controller: string): boolean => given.includes(controller);
  const freezer = existsSync(path.join(ROOT, NAME, 'cgroup.freeze'));
  return { version: 2, memory: has('memory'), pids: has('pids'), cpu: has('cpu'), freezer };
}

function canMake(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true });
    return existsSync(path.join(folder, 'cgroup.procs'));
  } catch {
    return false;
  }
}

function words(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').trim().split(' ').filter(Boolean);
  } catch {
    return [];
  }
}

function enableControllers(controllers: string[]): void {
  const wanted = controllers.filter((name) => name === 'memory' || name === 'pids' || name === 'cpu');
  for (const folder of [ROOT, path.join(ROOT, NAME)]) {
    for (const name of wanted) write(path.join(folder, 'cgroup.subtree_control'), `+${name}`);
  }
}

/**
 * Makes a sandbox's groups with its limits; returns their folders, the one that counts processes first. They are named
 * by the marker that its process 1 carries, so that everybody on the machine can tell whose they are.
 */
export function makeGroups(marker: string, spec: SandboxSpec, support: GroupSupport): string[] {
  if (support.version === null) return [];
  if (support.version === 2) {
    const folder = path.join(ROOT, NAME, marker);
    mkdirSync(folder, { recursive: true });
    write(path.join(folder, 'memory.max'), String(spec.memoryBytes));
    write(path.join(folder, 'memory.swap.max'), '0');
    write(path.join(folder, 'pids.max'), String(spec.pids));
    write(path.join(folder, 'cpu.max'), `${Math.round(spec.cpus * CPU_PERIOD_US)} ${CPU_PERIOD_US}`);
    return [folder];
  }
  const folders: string[] = [];
  const make = (controller: (typeof CONTROLLERS)[number], files: Record<string, string>): void => {
    if (!support[controller]) return;
    const folder = path.join(ROOT, controller, NAME, marker);
    mkdirSync(folder, { recursive: true });
    for (const [file, value] of Object.entries(files)) write(path.join(folder, file), value);
    folders.push(folder);
  };
  make('pids', { 'pids.max': String(spec.pids) });
  make('memory', {
    'memory.limit_in_bytes': String(spec.memoryBytes),
    'memory.memsw.limit_in_bytes': String(spec.memoryBytes),
  });
  make('cpu', {
    'cpu.cfs_period_us': String(CPU_PERIOD_US),
    'cpu.cfs_quota_us': String(Math.round(spec.cpus * CPU_PERIOD_US)),
  });
  make('freezer', {});
  return folders;
}

/** Where `makeGroups` puts a sandbox's groups. */
export function groupsOf(marker: string, support: GroupSupport): string[] {
  return parentsOf(support).map((parent) => path.join(parent, marker));
}

function parentsOf(support: GroupSupport): string[] {
  if (support.version === null) return [];
  if (support.version === 2) return [path.join(ROOT, NAME)];
  return CONTROLLERS.filter((name) => support[name]).map((name) => path.join(ROOT, name, NAME));
}

/**
 * Removes empty groups whose sandbox does not run, of whatever installation: a run that was killed and whose home was
 * deleted has nobody else. A paused sandbox gets its groups anew, as does a command that finds none.
 */
export function sweepGroups(support: GroupSupport, runningMarkers: () => Set<string>): void {
  const found = parentsOf(support).flatMap((parent) =>
    readdirSync(parent).flatMap((name) => (MARKER.test(name) ? [{ name, folder: path.join(parent, name) }] : [])),
  );
  if (found.length === 0) return;
  // Asked after the groups were: whose group is made from now on is not in the list.
  const running = runningMarkers();
  removeGroups(found.flatMap(({ name, folder }) => (running.has(name) ? [] : [folder])));
}

/** The limits that control groups hold; another process may have made them, so the groups themselves are asked. */
export interface HeldLimits {
  memory: boolean;
  cpu: boolean;
}

/** What the groups of one sandbox hold. */
export function heldBy(folders: string[]): HeldLimits {
  const has = (...files: string[]): boolean =>
    folders.some((folder) => files.some((file) => existsSync(path.join(folder, file))));
  return {
    memory: has('memory.limit_in_bytes', 'memory.max'),
    cpu: has('cpu.cfs_quota_us', 'cpu.max'),
  };
}

/** The kernel refuses to remove a group with a process in it: that one is left to the next sweep. */
export function removeGroups(folders: string[]): void {
  for (const folder of folders) {
    try {
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        if (entry.isDirectory()) rmdirSync(path.join(folder, entry.name));
      }
      rmdirSync(folder);
    } catch {
      // Busy for a moment longer, or gone already: an empty group costs nothing.
    }
  }
}

/** A limit file a kernel does not have (swap accounting, for example) is no reason to fail. */
function write(file: string, value: string): void {
  try {
    writeFileSync(file, value);
  } catch {
    // What could be enforced is told by `probeGroups`.
  }
}
