import { LonghaulError } from '../../../contracts/error-codes.ts';
import { type Journal, JournalCommands } from '../journal/index.ts';
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
import { createOnce, type Creation } from './create.ts';
import { attempt } from './errors.ts';
import * as files from './files.ts';
import { Handles } from './handles.ts';
import { filterOf, infoOf, settingsOf } from './metadata.ts';
import { networkOptions } from './network.ts';
import { connection, loadSdk, type E2bOptions, type Sdk } from './sdk.ts';
import { allSnapshots, snapshotOnce } from './snapshots.ts';

const NAME = 'e2b';
const PAGE = 100;
const SANDBOX_ID = /^[A-Za-z0-9-]{1,64}$/;
/** Looking through a journal costs more than a command. */
const PRUNE_EVERY = 128;

/** Sandboxes at E2B, or at whatever speaks its wire, through the vendor's SDK. Keeps nothing that an id does not give again. */
export class E2bProvider extends JournalCommands implements SandboxProvider {
  readonly name = NAME;
  private readonly options: E2bOptions;
  private readonly handles: Handles;
  private readonly creations = new Map<string, Promise<SandboxRef>>();
  private readonly savings = new Map<string, Promise<SnapshotRef>>();

  constructor(options: E2bOptions) {
    super();
    this.options = options;
    this.handles = new Handles(options);
  }

  capabilities(): Promise<SandboxCapabilities> {
    return Promise.resolve({
      isolation: 'vm',
      network: 'open',
      pause: 'memory',
      snapshot: true,
      egress: 'domains',
      secrets: 'native',
      ports: true,
      // A template's size is fixed when it is built: what a specification asks for does not change it.
      limits: { memory: 'unavailable', pids: 'unavailable', cpu: 'unavailable', disk: 'watched', output: 'enforced' },
      notes: ['the size of a sandbox is that of its template', `control plane: ${this.options.apiUrl ?? 'E2B'}`],
    });
  }

  create(spec: SandboxSpec, key: string, signal: AbortSignal): Promise<SandboxRef> {
    const creation: Creation = { options: this.options, spec, key, signal };
    return shared(this.creations, `${spec.owner}\0${key}`, () => attempt(signal, () => createOnce(creation)));
  }

  async get(ref: SandboxRef, signal: AbortSignal): Promise<SandboxInfo | null> {
    if (!SANDBOX_ID.test(ref.id)) return null;
    try {
      return await attempt(signal, async () => {
        const { Sandbox } = await loadSdk(this.options);
        return infoOf(await Sandbox.getInfo(ref.id, connection(this.options, signal)));
      });
    } catch (error) {
      if (error instanceof LonghaulError && error.code === 'sandbox_not_found') return null;
      throw error;
    }
  }

  async *list(owner: string, signal: AbortSignal): AsyncIterable<SandboxInfo> {
    const { Sandbox } = await loadSdk(this.options);
    const query = { metadata: filterOf(owner), state: ['running' as const, 'paused' as const] };
    const pages = Sandbox.list({ ...connection(this.options), query, limit: PAGE });
    while (pages.hasNext) {
      for (const sandbox of await attempt(signal, () => pages.nextItems())) {
        const info = infoOf(sandbox);
        if (info?.owner === owner) yield info;
      }
    }
  }

  async extend(ref: SandboxRef, ttlMs: number, signal: AbortSignal): Promise<void> {
    await this.control(ref, signal, (sandboxes, options) => sandboxes.setTimeout(ref.id, ttlMs, options));
  }

  async pause(ref: SandboxRef, signal: AbortSignal, options: { keepMemory?: boolean } = {}): Promise<boolean> {
    const info = await this.get(ref, signal);
    if (info === null || info.state !== 'running') return false;
    const keepMemory = options.keepMemory === true;
    const commands = await this.handles.commands(ref, signal);
    this.handles.freeze(ref.id, { keepMemory, commands });
    try {
      return await this.control(ref, signal, (sandboxes, given) => sandboxes.pause(ref.id, { ...given, keepMemory }));
    } catch (error) {
      this.handles.thaw(ref.id);
      if (error instanceof LonghaulError && error.code === 'sandbox_not_found') return false;
      throw error;
    }
  }

  async resume(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    this.handles.thaw(ref.id);
    return this.control(ref, signal, async (sandboxes, options) => {
      const info = await sandboxes.getInfo(ref.id, options);
      if (info.state === 'running') return false;
      const { ttlMs } = settingsOf(info.metadata);
      await sandboxes.connect(ref.id, { ...options, ...(ttlMs > 0 ? { timeoutMs: ttlMs } : {}) });
      return true;
    });
  }

  destroy(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    this.handles.forget(ref.id);
    this.handles.thaw(ref.id);
    return this.control(ref, signal, (sandboxes, options) => sandboxes.kill(ref.id, options));
  }

  protected withJournal<T>(ref: SandboxRef, signal: AbortSignal, work: (journal: Journal) => Promise<T>): Promise<T> {
    return this.handles.with(ref, signal, ({ journal }) => work(journal));
  }

  override async execStart(ref: SandboxRef, spec: ExecSpec, signal: AbortSignal): Promise<void> {
    await this.handles.with(ref, signal, async (handle) => {
      handle.starts += 1;
      if (handle.starts % PRUNE_EVERY === 0) await handle.journal.prune(signal);
      await handle.journal.start(spec, signal);
    });
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
      const isPaused = error instanceof LonghaulError && error.code === 'sandbox_lost';
      const known = isPaused ? this.handles.pollFrozen(ref.id, execId, from) : undefined;
      if (known === undefined) throw error;
      return known;
    }
  }

  readFile(ref: SandboxRef, path: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    return this.handles.with(ref, signal, ({ inside }) => files.readFile(inside, path, maxBytes, signal));
  }

  async writeFile(ref: SandboxRef, path: string, content: Uint8Array, signal: AbortSignal): Promise<void> {
    async function* whole(): AsyncIterable<Uint8Array> {
      yield content;
      await Promise.resolve();
    }
    await this.writeStream(ref, path, whole(), signal);
  }

  stat(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat | null> {
    return this.handles.with(ref, signal, ({ inside }) => files.stat(inside, path, signal));
  }

  listDir(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat[]> {
    return this.handles.with(ref, signal, ({ inside }) => files.listDir(inside, path, signal));
  }

  async *readStream(ref: SandboxRef, path: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
    const inside = await this.handles.with(ref, signal, (handle) => Promise.resolve(handle.inside));
    const pieces = files.readStream(inside, path, signal)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value } = await this.handles.with(ref, signal, () => pieces.next());
        if (done === true) return;
        yield value;
      }
    } finally {
      await pieces.return?.();
    }
  }

  writeStream(ref: SandboxRef, path: string, content: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<number> {
    return this.handles.with(ref, signal, ({ inside }) => files.writeStream(inside, path, content, signal));
  }

  remove(ref: SandboxRef, path: string, signal: AbortSignal): Promise<boolean> {
    return this.handles.with(ref, signal, ({ inside }) => files.remove(inside, path, signal));
  }

  async snapshot(ref: SandboxRef, key: string, signal: AbortSignal): Promise<SnapshotRef> {
    const info = await this.get(ref, signal);
    if (info === null) throw new LonghaulError('sandbox_not_found', `sandbox ${ref.id} does not exist`);
    const saving = { options: this.options, sandboxId: ref.id, owner: info.owner, key };
    return shared(this.savings, `${info.owner}\0${key}`, () => attempt(signal, () => snapshotOnce(saving)));
  }

  async deleteSnapshot(snapshot: SnapshotRef, signal: AbortSignal): Promise<boolean> {
    const { Sandbox } = await loadSdk(this.options);
    return attempt(signal, () => Sandbox.deleteSnapshot(snapshot.id, connection(this.options, signal)));
  }

  async *listSnapshots(owner: string, signal: AbortSignal): AsyncIterable<SnapshotInfo> {
    for (const { id, createdAtMs } of await attempt(signal, () => allSnapshots(this.options, owner))) {
      yield { ref: { provider: NAME, id, sizeBytes: 0, meta: {} }, owner, createdAtMs };
    }
  }

  async setNetwork(ref: SandboxRef, network: SandboxNetwork, signal: AbortSignal): Promise<void> {
    const { update } = networkOptions(network);
    await this.control(ref, signal, (sandboxes, options) => sandboxes.updateNetwork(ref.id, update, options));
  }

  egressPoint(): Promise<EgressPoint | null> {
    return Promise.resolve(null);
  }

  openPort(ref: SandboxRef, port: number, signal: AbortSignal): Promise<PortTarget> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      return Promise.reject(new LonghaulError('sandbox_invalid', 'must be 1 to 65535', { field: 'port' }));
    }
    return this.handles.with(ref, signal, ({ inside: { sandbox } }) => {
      const token = sandbox.trafficAccessToken;
      const headers: Record<string, string> = token === undefined ? {} : { 'e2b-traffic-access-token': token };
      const { sandboxUrl } = this.options;
      if (sandboxUrl === undefined) {
        return Promise.resolve({ type: 'url' as const, url: `https://${sandbox.getHost(port)}`, headers });
      }
      // One address for all sandboxes: headers tell which is meant.
      const named = { 'e2b-sandbox-id': ref.id, 'e2b-sandbox-port': String(port), ...headers };
      return Promise.resolve({ type: 'url' as const, url: sandboxUrl, headers: named });
    });
  }

  /** A call to the control plane about one sandbox. */
  private async control<T>(
    ref: SandboxRef,
    signal: AbortSignal,
    work: (sandboxes: Sdk['Sandbox'], options: object) => Promise<T>,
  ): Promise<T> {
    if (!SANDBOX_ID.test(ref.id)) throw new LonghaulError('sandbox_invalid', 'is no id of E2B', { field: 'id' });
    return attempt(signal, async () => {
      const { Sandbox } = await loadSdk(this.options);
      return work(Sandbox, connection(this.options, signal));
    });
  }
}

/** Who asks for the same at the same time shares one answer. */
function shared<T>(running: Map<string, Promise<T>>, key: string, work: () => Promise<T>): Promise<T> {
  const known = running.get(key);
  if (known !== undefined) return known;
  const started = work().finally(() => running.delete(key));
  running.set(key, started);
  return started;
}
