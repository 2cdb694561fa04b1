import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxInfo, SandboxSpec } from '../port.ts';
import { seccompProfile } from './seccomp.ts';
import { tar, type TarEntry } from './tar.ts';

/** How sandboxes are made on this engine. */
export interface ContainerOptions {
  /** Of an environment that names none. */
  image: string;
  /** Numbers, `uid:gid`, as which everything inside runs. */
  user: string;
  /** Of the engine: `runsc` for gVisor; absent: its default. */
  runtime?: string;
  /** A seccomp profile (JSON) in place of ours. */
  seccompFile?: string;
  /** The engine's storage keeps sizes (overlay2 on xfs with pquota, btrfs, zfs). */
  storageQuota: boolean;
}

export const CONTAINER_NAME = /^longhaul-[0-9a-f]{24}$/;
export const LABELS = {
  owner: 'longhaul.owner',
  /** The whole of the spec: what is needed to run commands, finish a creation, tell about it. */
  spec: 'longhaul.spec',
  snapshotOwner: 'longhaul.snapshot-owner',
  snapshotKey: 'longhaul.snapshot-key',
} as const;

/**
 * Root's own folder inside. `lease`: its time is when the lease ends, and it is not empty while the sandbox is paused with its
 * files only. The engine's labels cannot be changed; this can, also while nothing runs, and not from inside.
 */
const STATE_FOLDER = 'var/lib/longhaul';
export const LEASE_FILE = `/${STATE_FOLDER}/lease`;
const TRUST_FILE = 'etc/ssl/certs/ca-certificates.crt';
/** Process 1: reaps what is orphaned, deaf to all signals from inside. */
const INIT = 'while :; do sleep 86400 & wait $!; done';

export interface Inspected {
  Id: string;
  Image: string;
  Created: string;
  State: { Status: string; Running: boolean; Paused: boolean; Pid: number; OOMKilled: boolean };
  Config: { Labels: Record<string, string> | null };
}

export function nameOf(owner: string, key: string): string {
  return `longhaul-${hashOf(owner, key).slice(0, 24)}`;
}

export function hashOf(...parts: string[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex');
}

/** The journal's folder: not that of the sandbox whose snapshot this one was made from. */
export function journalFolder(name: string): string {
  return `/${STATE_FOLDER}/${name}`;
}

export function userOf(options: ContainerOptions): { uid: number; gid: number } {
  const [uid = 1_000, gid = uid] = options.user.split(':').map(Number);
  return { uid, gid };
}

/** What the engine is asked to make. */
export function containerBody(spec: SandboxSpec, options: ContainerOptions): object {
  return {
    Image: spec.snapshot?.id ?? spec.image ?? options.image,
    Entrypoint: ['sh', '-c', INIT],
    Cmd: [],
    Env: [],
    User: options.user,
    WorkingDir: '/workspace',
    Hostname: 'sandbox',
    StopSignal: 'SIGKILL',
    Healthcheck: { Test: ['NONE'] },
    Labels: { [LABELS.owner]: spec.owner, [LABELS.spec]: JSON.stringify(spec) },
    HostConfig: {
      NetworkMode: 'none',
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges:true', `seccomp=${profileOf(options)}`],
      Privileged: false,
      IpcMode: 'private',
      Memory: spec.memoryBytes,
      // The same as memory: none of it swaps.
      MemorySwap: spec.memoryBytes,
      NanoCpus: Math.round(spec.cpus * 1e9),
      PidsLimit: spec.pids + PIDS_OF_OURS,
      Ulimits: [
        { Name: 'nofile', Soft: 16_384, Hard: 16_384 },
        { Name: 'core', Soft: 0, Hard: 0 },
      ],
      LogConfig: { Type: 'none' },
      RestartPolicy: { Name: 'no' },
      ...(options.runtime === undefined ? {} : { Runtime: options.runtime }),
      ...(options.storageQuota ? { StorageOpt: { size: String(spec.diskBytes) } } : {}),
    },
  };
}

function profileOf({ seccompFile }: ContainerOptions): string {
  if (seccompFile === undefined) return seccompProfile();
  try {
    return readFileSync(seccompFile, 'utf8');
  } catch (cause) {
    throw new LonghaulError('setup_required', 'the seccomp profile cannot be read', {
      field: 'LONGHAUL_DOCKER_SECCOMP_FILE',
      cause,
    });
  }
}

/** Process 1 and what supervises a handful of commands at once. */
const PIDS_OF_OURS = 64;

/** What is put into a container before it starts for the first time. */
export function furniture(name: string, spec: SandboxSpec, options: ContainerOptions): Buffer {
  const mine = userOf(options);
  const root = { uid: 0, gid: 0, mtimeMs: Date.now() };
  const entries: TarEntry[] = [
    { path: 'workspace', mode: 0o755, mtimeMs: Date.now(), ...mine },
    { path: 'tmp', mode: 0o1777, ...root },
    { path: STATE_FOLDER, mode: 0o755, ...root },
    { path: journalFolder(name).slice(1), mode: 0o700, mtimeMs: Date.now(), ...mine },
    leaseEntry(Date.now() + spec.ttlMs, false),
  ];
  if (spec.trustBundleFile !== undefined) {
    entries.push({ path: TRUST_FILE, mode: 0o644, ...root, content: readTrust(spec.trustBundleFile) });
  }
  return tar(entries);
}

function readTrust(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new LonghaulError('sandbox_unavailable', 'the bundle of certificate authorities cannot be read', { cause });
  }
}

/** The archive that replaces the lease. */
export function leaseArchive(expiresAtMs: number, isPaused: boolean): Buffer {
  return tar([leaseEntry(expiresAtMs, isPaused)]);
}

function leaseEntry(expiresAtMs: number, isPaused: boolean): TarEntry {
  const content = Buffer.from(isPaused ? 'paused\n' : '');
  return { path: LEASE_FILE.slice(1), mode: 0o600, uid: 0, gid: 0, mtimeMs: expiresAtMs, content };
}

/** The lease, from the engine's answer to a HEAD of its file. */
export interface Lease {
  expiresAtMs: number;
  isPaused: boolean;
}

export function leaseOf(stat: { mtime: string; size: number }): Lease {
  return { expiresAtMs: Date.parse(stat.mtime), isPaused: stat.size > 0 };
}

/** Null for a container that is none of ours. */
export function specOf(labels: Record<string, string> | null): SandboxSpec | null {
  const text = labels?.[LABELS.spec];
  if (text === undefined) return null;
  try {
    return JSON.parse(text) as SandboxSpec;
  } catch {
    return null;
  }
}

export function infoOf(
  name: string,
  found: { image: string; labels: Record<string, string> | null; state: string; createdAtMs: number },
  lease: Lease | null,
): SandboxInfo | null {
  const spec = specOf(found.labels);
  if (spec === null) return null;
  const { state } = found;
  return {
    ref: { provider: 'docker', id: name, meta: { image: found.image } },
    state: state === 'running' ? 'running' : state === 'paused' || lease?.isPaused === true ? 'paused' : 'stopped',
    owner: spec.owner,
    labels: spec.labels,
    createdAtMs: found.createdAtMs,
    // Without a lease its creation was cut short.
    expiresAtMs: lease?.expiresAtMs ?? found.createdAtMs + spec.ttlMs,
  };
}
