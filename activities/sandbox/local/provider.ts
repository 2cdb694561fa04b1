import { existsSync, readdirSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { Logger } from '../../../telemetry/logger.ts';
import { unsupported } from '../unsupported.ts';
import type {
  EgressPoint,
  ExecInfo,
  ExecPoll,
  ExecSignal,
  ExecSpec,
  FileStat,
  PortTarget,
  SandboxCapabilities,
  SandboxInfo,
  SandboxNetwork,
  SandboxProvider,
  SandboxRef,
  SandboxSpec,
  SnapshotInfo,
  SnapshotRef,
} from '../port.ts';
import { capabilitiesOf, requireNetwork } from './capabilities.ts';
import { hostScripts } from './enter.ts';
import { killExec, pollExec, startExec } from './exec.ts';
import { listDir, readFile, remove, stat, writeFile } from './files.ts';
import { freeze, thaw } from './freezer.ts';
import { groupsOf, makeGroups, probeGroups, removeGroups, sweepGroups } from './groups.ts';
import { furnish, markerOf, rootfsOf, startHolder, type ShownFolders } from './holder.ts';
import type { CommandResult, ProcessIdentity } from './host.ts';
import { isAlive, run, runningMarkers } from './host.ts';
import { feedInput, signalExec } from './input.ts';
import { execDir, listExecs, pruneExecs } from './journal.ts';
import { Launcher } from './launcher.ts';
import { infoOf, isLeft, stopHolder, stopStrays, uidOf } from './life.ts';
import { withLock } from './lock.ts';
import { connectInside } from './ports.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf, readRecord, writeRecord } from './record.ts';
import { deleteSnapshot, listSnapshots, restoreSnapshot, saveSnapshot } from './snapshots.ts';
import { readStream, writeStream } from './streams.ts';
import { removeTree } from './trees.ts';

const NAME = 'local';
const INSIDE_MS = 20_000;
/** Looking through a journal costs more than a command. */
const PRUNE_EVERY = 128;
/** Exit code of `enter` when the command was not reached. */
const ENTER_FAILED = 125;
const SANDBOX_ID = /^lh-[0-9a-f]{24}$/;

export interface LocalProviderOptions extends ShownFolders {
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
  private readonly folders: ShownFolders;
  private readonly logger: Logger;
  private readonly launcher: Launcher;
  private readonly groups = probeGroups();
  /** Commands started per sandbox since its journal was last pruned. */
  private readonly starts = new Map<string, number>();

  constructor(options: LocalProviderOptions) {
    this.rootDir = options.rootDir;
    this.folders = { rootfsDir: options.rootfsDir, harnessDir: options.harnessDir };
    this.launcher = new Launcher(options.rootDir);
    this.logger = options.logger;
  }

  capabilities(): Promise<SandboxCapabilities> {
    return Promise.resolve(capabilitiesOf(this.groups));
  }

  async create(spec: SandboxSpec, key: string, signal: AbortSignal): Promise<SandboxRef> {
    requireNetwork(spec.network ?? { type: 'none' });
    rootfsOf(this.folders.rootfsDir, spec.image);
    const id = `lh-${createHash('sha256').update(`${spec.owner}\0${key}`).digest('hex').slice(0, 24)}`;
    await mkdir(pathsOf(this.rootDir, id).dir, { recursive: true, mode: 0o700 });
    await this.locked(id, async () => {
      signal.throwIfAborted();
      if (readRecord(this.rootDir, id) !== undefined) return;
      await this.make(id, spec, signal);
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

  pause(ref: SandboxRef, _signal: AbortSignal, options: { keepMemory?: boolean } = {}): Promise<boolean> {
    if (options.keepMemory === true && !this.groups.freezer) {
      return Promise.reject(unsupported(NAME, 'keep their memory over a pause here'));
    }
    return this.lockedIfThere(ref.id, async () => {
      const record = readRecord(this.rootDir, ref.id);
      if (record === undefined) return false;
      return options.keepMemory === true ? await this.freeze(record) : await this.stop(record);
    });
  }

  resume(ref: SandboxRef): Promise<boolean> {
    return this.locked(ref.id, async () => {
      const before = this.require(ref);
      if (before.holder !== null && isAlive(before.holder)) {
        if (before.frozen !== true) return false;
        thaw(this.rootDir, before);
        writeRecord(this.rootDir, { ...before, paused: false, frozen: false });
        return true;
      }
      const groups = makeGroups(markerOf(this.rootDir, ref.id), before.spec, this.groups);
      await this.start({ ...before, groups, paused: false, frozen: false });
      return true;
    });
  }

  destroy({ id }: SandboxRef): Promise<boolean> {
    return this.lockedIfThere(id, () => this.end(id));
  }

  async execStart(ref: SandboxRef, spec: ExecSpec): Promise<void> {
    const record = this.require(ref);
    if (!record.groups.every((folder) => existsSync(folder))) {
      makeGroups(markerOf(this.rootDir, ref.id), record.spec, this.groups);
    }
    const starts = (this.starts.get(ref.id) ?? 0) + 1;
    this.starts.set(ref.id, starts % PRUNE_EVERY);
    if (starts === PRUNE_EVERY) pruneExecs(this.rootDir, ref.id);
    await startExec(this.launcher, this.rootDir, record, spec);
  }

  async execPoll(
    ref: SandboxRef,
    execId: string,
    from: { out: number; err: number },
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ExecPoll> {
    this.require(ref);
    const dir = execDir(this.rootDir, ref.id, execId);
    return await pollExec(dir, from, waitMs, signal, this.launcher.news(dir));
  }

  async execKill(ref: SandboxRef, execId: string, signal: AbortSignal): Promise<void> {
    const dir = execDir(this.rootDir, ref.id, execId);
    if (readRecord(this.rootDir, ref.id)?.frozen !== true) return killExec(dir, signal);
    // What stands still cannot end. Nothing else gets further than the next look of its supervisor.
    await this.locked(ref.id, async () => {
      const record = this.require(ref);
      if (record.frozen === true) thaw(this.rootDir, record);
      await killExec(dir, signal);
      if (record.frozen === true) await freeze(this.rootDir, record);
    });
  }

  async execInput(ref: SandboxRef, execId: string, offset: number, data: Uint8Array | null): Promise<number> {
    this.require(ref);
    return feedInput(execDir(this.rootDir, ref.id, execId), offset, data);
  }

  async execSignal(ref: SandboxRef, execId: string, name: ExecSignal, signal: AbortSignal): Promise<boolean> {
    const { paused } = this.require(ref);
    if (paused) return false;
    return signalExec(execDir(this.rootDir, ref.id, execId), name, signal);
  }

  async execList(ref: SandboxRef, limit: number): Promise<ExecInfo[]> {
    this.require(ref);
    return listExecs(this.rootDir, ref.id, limit);
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

  readStream(ref: SandboxRef, path: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return readStream(this.commandInside, ref, path, signal);
  }

  async writeStream(
    ref: SandboxRef,
    path: string,
    content: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<number> {
    const maxBytes = this.require(ref).spec.diskBytes;
    return await writeStream(this.commandInside, ref, path, content, { maxBytes, signal });
  }

  remove(ref: SandboxRef, path: string, signal: AbortSignal): Promise<boolean> {
    return remove(this.inside, ref, path, signal);
  }

  async snapshot(ref: SandboxRef, key: string, signal: AbortSignal): Promise<SnapshotRef> {
    return await saveSnapshot(this.rootDir, this.require(ref), key, signal);
  }

  async deleteSnapshot(snapshot: SnapshotRef): Promise<boolean> {
    return deleteSnapshot(this.rootDir, snapshot);
  }

  async *listSnapshots(owner: string): AsyncIterable<SnapshotInfo> {
    yield* listSnapshots(this.rootDir, owner);
  }

  /** What there is of network is loopback alone; the broker listens on it, or does not. */
  async setNetwork(ref: SandboxRef, network: SandboxNetwork): Promise<void> {
    requireNetwork(network);
    await this.locked(ref.id, () => {
      const record = this.require(ref);
      writeRecord(this.rootDir, { ...record, spec: { ...record.spec, network } });
      return Promise.resolve();
    });
  }

  async egressPoint(ref: SandboxRef): Promise<EgressPoint | null> {
    const { holder } = this.require(ref);
    return holder === null || !isAlive(holder) ? null : { type: 'namespace', ...holder };
  }

  async openPort(ref: SandboxRef, port: number): Promise<PortTarget> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new LonghaulError('sandbox_invalid', 'must be a whole number from 1 to 65535', { field: 'port' });
    }
    this.require(ref);
    return { type: 'stream', connect: async () => connectInside(this.rootDir, this.require(ref), port) };
  }

  private async make(id: string, spec: SandboxSpec, signal: AbortSignal): Promise<void> {
    const now = Date.now();
    const record: SandboxRecord = {
      id,
      spec,
      uid: process.getuid?.() === 0 ? uidOf(id) : -1,
      createdAtMs: now,
      expiresAtMs: now + spec.ttlMs,
      paused: false,
      holder: null,
      groups: makeGroups(markerOf(this.rootDir, id), spec, this.groups),
    };
    if (spec.snapshot !== undefined) {
      // Half a restore of one who died.
      await removeTree(pathsOf(this.rootDir, id).box);
      furnish(this.rootDir, record);
      await restoreSnapshot(this.rootDir, record, spec.snapshot, signal);
    }
    await this.start(record);
  }

  private async start(record: SandboxRecord): Promise<void> {
    furnish(this.rootDir, record);
    rmSync(pathsOf(this.rootDir, record.id).frozen, { force: true });
    const onPid = (holder: ProcessIdentity): void => {
      writeRecord(this.rootDir, { ...record, holder });
      this.launcher.introduce(record.id, holder);
    };
    // Whoever makes or wakes a sandbox has a command for it.
    this.launcher.park(record);
    try {
      await startHolder(this.rootDir, record, { ...this.folders, onPid });
    } catch (error) {
      await this.launcher.drop(record.id);
      throw error;
    }
  }

  /** The record first: a freeze that a crash cut short is finished by the next one, or undone by `resume`. */
  private async freeze(record: SandboxRecord): Promise<boolean> {
    if (record.paused && record.frozen !== true) return false;
    if (record.holder === null || !isAlive(record.holder)) return false;
    await this.launcher.drop(record.id);
    writeRecord(this.rootDir, { ...record, paused: true, frozen: true });
    try {
      await freeze(this.rootDir, record);
    } catch (error) {
      writeRecord(this.rootDir, record);
      throw error;
    }
    return !record.paused;
  }

  private async stop(record: SandboxRecord): Promise<boolean> {
    if (record.paused && record.frozen !== true) return false;
    await this.launcher.drop(record.id);
    await stopHolder(this.rootDir, record);
    writeRecord(this.rootDir, { ...record, paused: true, frozen: false, holder: null });
    return true;
  }

  private readonly commandInside = (ref: SandboxRef, argv: string[]): string[] => {
    const record = this.require(ref);
    const { holder } = record;
    if (holder === null || record.paused || !isAlive(holder)) {
      throw new LonghaulError('sandbox_lost', 'the sandbox is not running');
    }
    const { filter } = pathsOf(this.rootDir, ref.id);
    const identity = [markerOf(this.rootDir, record.id), String(record.uid), String(holder.pid), holder.startTime];
    return ['perl', '-e', hostScripts().run, '--', ...identity, filter, ...argv];
  };

  private readonly inside: Inside = async (ref, argv, options) => {
    const result = await run(this.commandInside(ref, argv), { ...options, timeoutMs: INSIDE_MS });
    if (result.code !== ENTER_FAILED) return result;
    // It may have ended meanwhile, which is to be told as such.
    this.commandInside(ref, argv);
    throw new LonghaulError('sandbox_unavailable', result.stderr.toString().slice(0, 300));
  };

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

  private async end(id: string): Promise<boolean> {
    const record = readRecord(this.rootDir, id);
    // Until it has ended: one that has just been started does not bear the sandbox's name yet, and is no stray to see.
    const dropped = this.launcher.drop(id);
    if (record !== undefined) await stopHolder(this.rootDir, record);
    await dropped;
    const { dir, record: file } = pathsOf(this.rootDir, id);
    await stopStrays(this.rootDir, id);
    // Without its record the sandbox is gone for everybody; what is left of the files is the sweep's.
    this.starts.delete(id);
    rmSync(file, { force: true });
    await removeTree(dir);
    removeGroups(record?.groups ?? groupsOf(markerOf(this.rootDir, id), this.groups));
    return record !== undefined;
  }

  private async sweep(id: string): Promise<void> {
    if (!SANDBOX_ID.test(id) || !isLeft(this.rootDir, id)) return;
    try {
      // Asked again under the lock: making one from a large snapshot takes long, and ends with its record.
      await this.lockedIfThere(id, async () => readRecord(this.rootDir, id) === undefined && (await this.end(id)));
    } catch (error) {
      this.logger.warn({ sandboxId: id, err: error }, 'the rest of a sandbox could not be removed');
    }
  }
}
