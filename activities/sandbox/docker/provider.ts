import { LonghaulError } from '../../../contracts/error-codes.ts';
import { connectInside } from '../../../egress/namespace/porter.ts';
import { Journal, JournalCommands } from '../journal/index.ts';
import type {
  EgressPoint,
  ExecPoll,
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
import { unsupported } from '../unsupported.ts';
import type { ContainerOptions } from './container.ts';
import { CONTAINER_NAME, infoOf, journalFolder, LABELS, nameOf, specOf } from './container.ts';
import { Containers, notFound } from './containers.ts';
import { Engine, type EngineAddress } from './engine.ts';
import * as files from './files.ts';
import { capabilitiesOf, egressPointOf, mayEnterNetworks, requireNetwork } from './host.ts';
import type { PullPolicy } from './images.ts';
import * as images from './images.ts';
import { type InsideTarget, runInside } from './inside.ts';
import { pollOutside } from './outside.ts';

const NAME = 'docker';
const PRUNE_EVERY = 128;

export interface DockerOptions extends EngineAddress, ContainerOptions {
  pull: PullPolicy;
}

interface Listed {
  Names: string[];
  ImageID: string;
  Created: number;
  State: string;
  Labels: Record<string, string> | null;
}

/** Sandboxes as containers of a Docker engine. Holds nothing: what it must know of a container is on the engine. */
export class DockerProvider extends JournalCommands implements SandboxProvider {
  readonly name = NAME;
  private readonly options: DockerOptions;
  private readonly engine: Engine;
  private readonly containers: Containers;
  private entersNetworks = false;
  /** Snapshots that are being taken, by id: a second call would commit the files a second time. */
  private readonly taking = new Map<string, Promise<SnapshotRef>>();
  /** Commands started per sandbox since its journal was last pruned. */
  private readonly starts = new Map<string, number>();
  /** What running a command needs to know, which never changes. */
  private readonly specs = new Map<string, SandboxSpec>();

  constructor(options: DockerOptions) {
    super();
    this.options = options;
    this.engine = new Engine(options);
    this.containers = new Containers(this.engine, options);
  }

  async capabilities(): Promise<SandboxCapabilities> {
    return capabilitiesOf(await this.engine.info(), this.options, this.hasListener());
  }

  async create(spec: SandboxSpec, key: string, signal: AbortSignal): Promise<SandboxRef> {
    requireNetwork(spec.network ?? { type: 'none' }, this.hasListener());
    if (spec.snapshot !== undefined) images.requireSnapshotId(spec.snapshot.id);
    const name = nameOf(spec.owner, key);
    const found = await this.containers.obtain(name, spec, signal);
    if (found.State.Status === 'created')
      await this.containers.begin(name, specOf(found.Config.Labels) ?? spec, signal);
    return { provider: NAME, id: name, meta: { image: found.Image } };
  }

  async get(ref: SandboxRef, signal: AbortSignal): Promise<SandboxInfo | null> {
    const found = CONTAINER_NAME.test(ref.id) ? await this.containers.inspect(ref.id, signal) : null;
    if (found === null || found.State.Status === 'removing' || found.State.Status === 'dead') return null;
    const about = {
      image: found.Image,
      labels: found.Config.Labels,
      state: found.State.Status,
      createdAtMs: Date.parse(found.Created),
    };
    return infoOf(ref.id, about, await this.containers.leaseOf(ref.id, signal));
  }

  async *list(owner: string, signal: AbortSignal): AsyncIterable<SandboxInfo> {
    const query = { all: 'true', filters: JSON.stringify({ label: [`${LABELS.owner}=${owner}`] }) };
    const { body } = await this.engine.json<Listed[]>('GET', '/containers/json', { signal, query, ok: [200] });
    for (const found of body ?? []) {
      const name = found.Names[0]?.slice(1) ?? '';
      if (!CONTAINER_NAME.test(name) || found.State === 'removing' || found.State === 'dead') continue;
      const lease = await this.containers.leaseOf(name, signal);
      const about = {
        image: found.ImageID,
        labels: found.Labels,
        state: found.State,
        createdAtMs: found.Created * 1_000,
      };
      const info = infoOf(name, about, lease);
      if (info !== null) yield info;
    }
  }

  async extend(ref: SandboxRef, ttlMs: number, signal: AbortSignal): Promise<void> {
    await this.containers.require(ref, signal);
    const lease = await this.containers.leaseOf(ref.id, signal);
    await this.containers.putLease(
      ref.id,
      { expiresAtMs: Date.now() + ttlMs, isPaused: lease?.isPaused ?? false },
      signal,
    );
  }

  async pause(ref: SandboxRef, signal: AbortSignal, options: { keepMemory?: boolean } = {}): Promise<boolean> {
    const found = CONTAINER_NAME.test(ref.id) ? await this.containers.inspect(ref.id, signal) : null;
    if (found === null || found.State.Status === 'removing') return false;
    if (options.keepMemory === true) {
      if (!found.State.Running || found.State.Paused) return false;
      const { status } = await this.engine.json('POST', `/containers/${ref.id}/pause`, { signal, ok: [204, 409] });
      return status === 204;
    }
    const lease = await this.containers.leaseOf(ref.id, signal);
    if (!found.State.Running && lease?.isPaused === true) return false;
    // First, so that a crash in between leaves one that runs, not one that seems to have died.
    const expiresAtMs = lease?.expiresAtMs ?? Date.now() + (specOf(found.Config.Labels)?.ttlMs ?? 0);
    await this.containers.putLease(ref.id, { expiresAtMs, isPaused: true }, signal);
    if (found.State.Running) await this.containers.stop(ref.id, signal);
    return true;
  }

  async resume(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    const found = await this.containers.require(ref, signal);
    if (found.State.Paused) {
      await this.engine.json('POST', `/containers/${ref.id}/unpause`, { signal, ok: [204, 409] });
      return true;
    }
    if (found.State.Running) return false;
    const spec = specOf(found.Config.Labels);
    if (found.State.Status === 'created' && spec !== null) {
      await this.containers.begin(ref.id, spec, signal);
      return true;
    }
    const lease = await this.containers.leaseOf(ref.id, signal);
    const expiresAtMs = lease?.expiresAtMs ?? Date.now() + (spec?.ttlMs ?? 0);
    await this.containers.putLease(ref.id, { expiresAtMs, isPaused: false }, signal);
    await this.engine.json('POST', `/containers/${ref.id}/start`, { signal, ok: [204, 304] });
    return true;
  }

  async destroy(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    if (!CONTAINER_NAME.test(ref.id)) return false;
    this.starts.delete(ref.id);
    this.specs.delete(ref.id);
    const query = { force: 'true', v: 'true' };
    const route = `/containers/${ref.id}`;
    const { status } = await this.engine.json('DELETE', route, { signal, query, ok: [204, 404, 409] });
    // Somebody else is at it.
    if (status === 409)
      await this.containers.until(async () => (await this.containers.inspect(ref.id, signal)) === null, signal);
    return status === 204;
  }

  override async execStart(ref: SandboxRef, spec: ExecSpec, signal: AbortSignal): Promise<void> {
    const journal = await this.journal(ref, signal);
    await journal.start(spec, signal);
    const starts = (this.starts.get(ref.id) ?? 0) + 1;
    this.starts.set(ref.id, starts % PRUNE_EVERY);
    if (starts === PRUNE_EVERY) await journal.prune(signal);
  }

  override async execPoll(
    ref: SandboxRef,
    execId: string,
    from: { out: number; err: number },
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ExecPoll> {
    try {
      return await super.execPoll(ref, execId, from, waitMs, signal);
    } catch (error) {
      if (!(error instanceof LonghaulError) || !/^sandbox_(lost|unavailable)$/.test(error.code)) throw error;
      const { State } = await this.containers.require(ref, signal);
      if (State.Running && !State.Paused) throw error;
      const folder = journalFolder(ref.id);
      return await pollOutside(this.engine, ref.id, { folder, execId, from, isFrozen: State.Paused }, signal);
    }
  }

  readFile(ref: SandboxRef, path: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    return files.readFile(this.inside(ref), path, maxBytes, signal);
  }

  async writeFile(ref: SandboxRef, path: string, content: Uint8Array, signal: AbortSignal): Promise<void> {
    await files.writeStream(this.inside(ref), path, onePiece(content), signal);
  }

  stat(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat | null> {
    return files.stat(this.inside(ref), path, signal);
  }

  listDir(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat[]> {
    return files.listDir(this.inside(ref), path, signal);
  }

  readStream(ref: SandboxRef, path: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return files.readStream(this.inside(ref), path, signal);
  }

  writeStream(ref: SandboxRef, path: string, content: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<number> {
    return files.writeStream(this.inside(ref), path, content, signal);
  }

  remove(ref: SandboxRef, path: string, signal: AbortSignal): Promise<boolean> {
    return files.remove(this.inside(ref), path, signal);
  }

  async snapshot(ref: SandboxRef, key: string, signal: AbortSignal): Promise<SnapshotRef> {
    const found = await this.containers.require(ref, signal);
    const owner = found.Config.Labels?.[LABELS.owner] ?? '';
    const id = images.snapshotId(owner, key);
    const taking = this.taking.get(id) ?? images.takeSnapshot(this.engine, found, owner, key, signal);
    this.taking.set(id, taking);
    try {
      return await taking;
    } finally {
      if (this.taking.get(id) === taking) this.taking.delete(id);
    }
  }

  deleteSnapshot(snapshot: SnapshotRef, signal: AbortSignal): Promise<boolean> {
    return images.deleteSnapshot(this.engine, snapshot.id, signal);
  }

  async *listSnapshots(owner: string, signal: AbortSignal): AsyncIterable<SnapshotInfo> {
    await images.sweepRetired(this.engine, signal);
    yield* images.listSnapshots(this.engine, owner, signal);
  }

  async setNetwork(ref: SandboxRef, network: SandboxNetwork, signal: AbortSignal): Promise<void> {
    // No container has a network: whether the broker listens inside is the broker's.
    requireNetwork(network, this.hasListener());
    await this.containers.require(ref, signal);
  }

  async egressPoint(ref: SandboxRef, signal: AbortSignal): Promise<EgressPoint | null> {
    const { Id, State } = await this.containers.require(ref, signal);
    return this.hasListener() ? egressPointOf({ id: Id, pid: State.Pid }) : null;
  }

  async openPort(ref: SandboxRef, port: number, signal: AbortSignal): Promise<PortTarget> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new LonghaulError('sandbox_invalid', 'must be from 1 to 65535', { field: 'port' });
    }
    if (!this.hasListener()) throw unsupported(NAME, 'open ports: the worker is not root on the engine’s machine');
    const point = await this.egressPoint(ref, signal);
    if (point === null) throw new LonghaulError('sandbox_lost', 'the sandbox does not run');
    return { type: 'stream', connect: () => connectInside(point, port) };
  }

  /** Asked again until it is so: the engine may start after the worker. */
  private hasListener(): boolean {
    this.entersNetworks ||= mayEnterNetworks(this.engine.isLocal);
    return this.entersNetworks;
  }

  private inside(ref: SandboxRef): InsideTarget {
    if (!CONTAINER_NAME.test(ref.id)) throw notFound(ref);
    return { engine: this.engine, container: ref.id, user: this.options.user };
  }

  protected async withJournal<T>(
    ref: SandboxRef,
    signal: AbortSignal,
    work: (journal: Journal) => Promise<T>,
  ): Promise<T> {
    return await work(await this.journal(ref, signal));
  }

  private async journal(ref: SandboxRef, signal: AbortSignal): Promise<Journal> {
    const target = this.inside(ref);
    const known = this.specs.get(ref.id) ?? specOf((await this.containers.require(ref, signal)).Config.Labels);
    if (known === null) throw notFound(ref);
    this.specs.set(ref.id, known);
    return new Journal({
      transport: {
        run: async (argv, options) => (await runInside(target, argv, { ...options, withCode: false })).stdout,
      },
      root: journalFolder(ref.id),
      framing: 'raw',
      env: known.env,
      ...(this.options.storageQuota ? {} : { disk: { limitBytes: known.diskBytes, folders: ['/workspace', '/tmp'] } }),
    });
  }
}

async function* onePiece(content: Uint8Array): AsyncIterable<Uint8Array> {
  await Promise.resolve();
  yield content;
}
