import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { chmod, mkdir, readdir, rm } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { Logger } from '../../../telemetry/logger.ts';
import { unsupported } from '../unsupported.ts';
import type {
  EgressPoint,
  ExecInfo,
  ExecPoll,
  ExecSpec,
  FileStat,
  PortTarget,
  SandboxCapabilities,
  SandboxInfo,
  SandboxProvider,
  SandboxRef,
  SandboxSpec,
  SnapshotInfo,
  SnapshotRef,
} from '../port.ts';
import { hostScripts } from './enter.ts';
import { execDir, killExec, pollExec, pruneExecs, startExec } from './exec.ts';
import { listDir, readFile, stat, writeFile } from './files.ts';
import { groupsOf, makeGroups, probeGroups, removeGroups, sweepGroups } from './groups.ts';
import { furnish, markerOf, startHolder } from './holder.ts';
import type { CommandResult } from './host.ts';
import { isAlive, killProcess, processesNamed, run, runningMarkers, startTimeOf } from './host.ts';
import { withLock } from './lock.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf, readRecord, writeRecord } from './record.ts';

const NAME = 'local';
const INSIDE_MS = 20_000;
/** Looking through a journal costs more than a command. */
const PRUNE_EVERY = 128;
/** Exit code of `enter` when the command was not reached. */
const ENTER_FAILED = 125;
/** A folder without a record this old is the rest of a creation that was cut short. */
const STRAY_MS = 60_000;
/** Supervisors end by themselves once their command is gone. */
const STRAYS_MS = 2_000;
const SANDBOX_ID = /^lh-[0-9a-f]{24}$/;
/** Host uids of sandboxes of a root worker: one each, far from those of people and services. */
const UID_BASE = 0x2000_0000;
const UID_SPAN = 0x4000_0000;

export interface LocalProviderOptions {
  /** Holds one folder per sandbox; need not be reachable by other users. */
  rootDir: string;
  logger: Logger;
}

/** Runs a short command inside, outside the journal: for file work. */
export type Inside = (
  ref: SandboxRef,
  argv: string[],
  options: { input?: Uint8Array; maxBytes: number; signal: AbortSignal },
) => Promise<CommandResult>;

/** Sandboxes on this host: namespaces, seccomp, control groups and resource limits. */
export class LocalProvider implements SandboxProvider {
  readonly name = NAME;
  private readonly rootDir: string;
  private readonly logger: Logger;
  private readonly groups = probeGroups();
  private readonly inside: Inside;
  /** Commands started per sandbox since its journal was last pruned. */
  private readonly starts = new Map<string, number>();

  constructor(options: LocalProviderOptions) {
    this.rootDir = options.rootDir;
    this.logger = options.logger;
    this.inside = (ref, argv, runOptions) => this.runInside(ref, argv, runOptions);
  }

  capabilities(): Promise<SandboxCapabilities> {
    const { version, memory, cpu } = this.groups;
    return Promise.resolve({
      isolation: 'namespace',
      network: 'none',
      pause: 'filesystem',
      snapshot: false,
      egress: 'none',
      secrets: 'none',
      ports: false,
      limits: {
        memory: memory ? 'enforced' : 'watched',
        pids: 'enforced',
        cpu: 'enforced',
        disk: 'watched',
        output: 'enforced',
      },
      notes: [
        process.getuid?.() === 0 ? 'one host uid per sandbox' : 'user namespace of the worker’s own uid',
        version === null ? 'no control groups' : `control groups v${version}`,
        memory ? 'memory by control group' : 'memory by counting it, and per process by resource limit',
        cpu ? 'CPU time by control group' : 'CPU by pinning to processors',
      ],
    });
  }

  async create(spec: SandboxSpec, key: string, signal: AbortSignal): Promise<SandboxRef> {
    const id = `lh-${createHash('sha256').update(`${spec.owner}\0${key}`).digest('hex').slice(0, 24)}`;
    await mkdir(pathsOf(this.rootDir, id).dir, { recursive: true, mode: 0o700 });
    await this.locked(id, async () => {
      signal.throwIfAborted();
      const known = readRecord(this.rootDir, id);
      if (known !== undefined) return;
      const now = Date.now();
      const uid = process.getuid?.() === 0 ? uidOf(id) : -1;
      const record: SandboxRecord = {
        id,
        spec,
        uid,
        createdAtMs: now,
        expiresAtMs: now + spec.ttlMs,
        paused: false,
        holder: null,
        groups: makeGroups(markerOf(this.rootDir, id), spec, this.groups),
      };
      furnish(this.rootDir, record);
      await startHolder(this.rootDir, record, (holder) => writeRecord(this.rootDir, { ...record, holder }));
    });
    return { provider: NAME, id, meta: {} };
  }

  get(ref: SandboxRef): Promise<SandboxInfo | null> {
    const record = SANDBOX_ID.test(ref.id) ? readRecord(this.rootDir, ref.id) : undefined;
    return Promise.resolve(record === undefined ? null : infoOf(record));
  }

  async *list(owner: string): AsyncIterable<SandboxInfo> {
    sweepGroups(this.groups, runningMarkers);
    if (!existsSync(this.rootDir)) return;
    for (const id of readdirSync(this.rootDir)) {
      const record = readRecord(this.rootDir, id);
      if (record === undefined) await this.sweep(id);
      else if (record.spec.owner === owner) yield infoOf(record);
    }
  }

  extend(ref: SandboxRef, ttlMs: number): Promise<void> {
    return this.locked(ref.id, () => {
      writeRecord(this.rootDir, { ...this.require(ref), expiresAtMs: Date.now() + ttlMs });
      return Promise.resolve();
    });
  }

  pause(ref: SandboxRef): Promise<boolean> {
    return this.lockedIfThere(ref.id, async () => {
      const record = readRecord(this.rootDir, ref.id);
      if (record === undefined || record.paused) return false;
      await this.stopHolder(record);
      writeRecord(this.rootDir, { ...record, paused: true, holder: null });
      return true;
    });
  }

  resume(ref: SandboxRef): Promise<boolean> {
    return this.locked(ref.id, async () => {
      const before = this.require(ref);
      if (before.holder !== null && isAlive(before.holder)) return false;
      const groups = makeGroups(markerOf(this.rootDir, ref.id), before.spec, this.groups);
      const record = { ...before, groups, paused: false };
      furnish(this.rootDir, record);
      await startHolder(this.rootDir, record, (holder) => writeRecord(this.rootDir, { ...record, holder }));
      return true;
    });
  }

  destroy(ref: SandboxRef): Promise<boolean> {
    return this.lockedIfThere(ref.id, async () => {
      const record = readRecord(this.rootDir, ref.id);
      if (record !== undefined) await this.stopHolder(record);
      const { dir, record: file } = pathsOf(this.rootDir, ref.id);
      await this.stopStrays(ref.id);
      // Without its record the sandbox is gone for everybody; what is left of the files is the sweep's.
      this.starts.delete(ref.id);
      rmSync(file, { force: true });
      await removeTree(dir);
      removeGroups(record?.groups ?? groupsOf(markerOf(this.rootDir, ref.id), this.groups));
      return record !== undefined;
    });
  }

  async execStart(ref: SandboxRef, spec: ExecSpec): Promise<void> {
    const record = this.require(ref);
    if (!record.groups.every((folder) => existsSync(folder))) {
      makeGroups(markerOf(this.rootDir, ref.id), record.spec, this.groups);
    }
    const starts = (this.starts.get(ref.id) ?? 0) + 1;
    this.starts.set(ref.id, starts % PRUNE_EVERY);
    if (starts === PRUNE_EVERY) pruneExecs(this.rootDir, ref.id);
    await startExec(this.rootDir, record, spec);
  }

  async execPoll(
    ref: SandboxRef,
    execId: string,
    from: { out: number; err: number },
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ExecPoll> {
    this.require(ref);
    return await pollExec(execDir(this.rootDir, ref.id, execId), from, waitMs, signal);
  }

  async execKill(ref: SandboxRef, execId: string, signal: AbortSignal): Promise<void> {
    await killExec(execDir(this.rootDir, ref.id, execId), signal);
  }

  readFile(ref: SandboxRef, path: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    return readFile(this.inside, ref, path, maxBytes, signal);
  }

  writeFile(ref: SandboxRef, path: string, content: Uint8Array, signal: AbortSignal): Promise<void> {
    return writeFile(this.inside, ref, path, content, signal);
  }

  stat(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat | null> {
    return stat(this.inside, ref, path, signal);
  }

  listDir(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat[]> {
    return listDir(this.inside, ref, path, signal);
  }

  execInput(): Promise<number> {
    return Promise.reject(unsupported(NAME, 'be fed input'));
  }

  execSignal(): Promise<boolean> {
    return Promise.reject(unsupported(NAME, 'pass signals on'));
  }

  execList(): Promise<ExecInfo[]> {
    return Promise.reject(unsupported(NAME, 'list commands'));
  }

  readStream(): AsyncIterable<Uint8Array> {
    throw unsupported(NAME, 'stream files');
  }

  writeStream(): Promise<number> {
    return Promise.reject(unsupported(NAME, 'stream files'));
  }

  remove(): Promise<boolean> {
    return Promise.reject(unsupported(NAME, 'remove files'));
  }

  snapshot(): Promise<SnapshotRef> {
    return Promise.reject(unsupported(NAME, 'be saved'));
  }

  deleteSnapshot(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async *listSnapshots(): AsyncIterable<SnapshotInfo> {}

  setNetwork(): Promise<void> {
    return Promise.resolve();
  }

  egressPoint(): Promise<EgressPoint | null> {
    return Promise.resolve(null);
  }

  openPort(): Promise<PortTarget> {
    return Promise.reject(unsupported(NAME, 'open ports'));
  }

  private async runInside(
    ref: SandboxRef,
    argv: string[],
    options: { input?: Uint8Array; maxBytes: number; signal: AbortSignal },
  ): Promise<CommandResult> {
    const record = this.require(ref);
    const { holder } = record;
    if (holder === null || !isAlive(holder)) throw new LonghaulError('sandbox_lost', 'the sandbox is not running');
    const { filter } = pathsOf(this.rootDir, ref.id);
    const identity = [markerOf(this.rootDir, record.id), String(record.uid), String(holder.pid), holder.startTime];
    const command = ['perl', '-e', hostScripts().run, '--', ...identity, filter, ...argv];
    const result = await run(command, { ...options, timeoutMs: INSIDE_MS });
    if (result.code !== ENTER_FAILED || !isAlive(holder)) return result;
    throw new LonghaulError('sandbox_unavailable', result.stderr.toString().slice(0, 300));
  }

  private require(ref: SandboxRef): SandboxRecord {
    const record = SANDBOX_ID.test(ref.id) ? readRecord(this.rootDir, ref.id) : undefined;
    if (record === undefined) throw new LonghaulError('sandbox_not_found', `sandbox ${ref.id} does not exist`);
    return record;
  }

  private async locked<T>(id: string, work: () => Promise<T>): Promise<T> {
    if (!SANDBOX_ID.test(id)) throw new LonghaulError('sandbox_invalid', 'is no local sandbox id', { field: 'id' });
    if (!existsSync(pathsOf(this.rootDir, id).dir)) {
      throw new LonghaulError('sandbox_not_found', `sandbox ${id} does not exist`);
    }
    return await withLock(pathsOf(this.rootDir, id).lock, work);
  }

  private lockedIfThere(id: string, work: () => Promise<boolean>): Promise<boolean> {
    if (!SANDBOX_ID.test(id) || !existsSync(pathsOf(this.rootDir, id).dir)) return Promise.resolve(false);
    return this.locked(id, work);
  }

  /** Killing process 1 of the namespace kills everything in it. */
  private async stopHolder(record: SandboxRecord): Promise<void> {
    const { holder } = record;
    if (holder === null || !killProcess(holder, 'SIGKILL')) return;
    while (startTimeOf(holder.pid) === holder.startTime) await delay(1);
  }

  /** Processes the record does not name: a lost record, or supervisors that have a last word to write. */
  private async stopStrays(id: string): Promise<void> {
    const marker = markerOf(this.rootDir, id);
    const deadlineMs = Date.now() + STRAYS_MS;
    for (let waitMs = 1; ; waitMs *= 2) {
      const strays = processesNamed(marker);
      if (strays.length === 0) return;
      for (const { identity, isHolder } of strays) {
        if (isHolder || Date.now() > deadlineMs) killProcess(identity, 'SIGKILL');
      }
      await delay(Math.min(waitMs, 50));
    }
  }

  private async sweep(id: string): Promise<void> {
    const { dir } = pathsOf(this.rootDir, id);
    const stats = statSync(dir, { throwIfNoEntry: false });
    if (stats === undefined || !SANDBOX_ID.test(id) || Date.now() - stats.mtimeMs < STRAY_MS) return;
    this.logger.warn({ sandboxId: id }, 'removing the rest of a sandbox');
    await this.destroy({ provider: NAME, id, meta: {} });
  }
}

function uidOf(id: string): number {
  return UID_BASE + (createHash('sha256').update(id).digest().readUInt32BE(0) % UID_SPAN);
}

/** Kills process 1 of every sandbox under `rootDir`, and with it all its commands. Returns how many ran. */
export function stopAllSandboxes(rootDir: string): number {
  if (!existsSync(rootDir)) return 0;
  let stopped = 0;
  for (const id of readdirSync(rootDir)) {
    const holder = readRecord(rootDir, id)?.holder;
    if (holder !== undefined && holder !== null && killProcess(holder, 'SIGKILL')) stopped += 1;
  }
  return stopped;
}

function infoOf(record: SandboxRecord): SandboxInfo {
  const running = record.holder !== null && isAlive(record.holder);
  return {
    ref: { provider: NAME, id: record.id, meta: {} },
    state: record.paused ? 'paused' : running ? 'running' : 'stopped',
    owner: record.spec.owner,
    labels: record.spec.labels,
    createdAtMs: record.createdAtMs,
    expiresAtMs: record.expiresAtMs,
  };
}

/** Supervisors may still write their last word, and the sandboxed code may have locked its folders. */
async function removeTree(dir: string): Promise<void> {
  for (let tries = 0; existsSync(dir); tries += 1) {
    try {
      await rm(dir, { recursive: true, force: true, maxRetries: 3, retryDelay: 10 });
    } catch (error) {
      if (tries >= 5) throw error;
      await unlock(dir);
    }
  }
}

async function unlock(dir: string): Promise<void> {
  try {
    await chmod(dir, 0o700);
    for (const entry of await readdir(dir, { withFileTypes: true })) {
      if (entry.isDirectory()) await unlock(`${dir}/${entry.name}`);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
