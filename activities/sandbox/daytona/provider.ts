import type { Sandbox } from '@daytonaio/sdk';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { Journal, JournalCommands } from '../journal/index.ts';
import { listDir, readFile, requireAbsolute, stat, writeFile } from '../local/files.ts';
import type { Inside } from '../local/provider.ts';
import { unsupported } from '../unsupported.ts';
import type {
  EgressPoint,
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
import { DaytonaClient } from './client.ts';
import { statusOf } from './errors.ts';
import type { Within } from './files.ts';
import { readStream, remove, writeStream } from './files.ts';
import { quoted, runInside, runScript, upload } from './inside.ts';
import { prepare } from './prepare.ts';
import { deleteSnapshot, listSnapshots, saveSnapshot } from './snapshots.ts';
import { createParams, LABEL, leaseLabels, networkSettings, requireName, sandboxName, ttlMinutes } from './spec.ts';
import { infoOf, phaseOf } from './state.ts';

const NAME = 'daytona';
/** Of one change of state: an image may have to be pulled or built. */
const CREATE_S = 300;
const CHANGE_S = 120;
const LIST_PAGE = 100;
/** Lies with the files, so that both last as long. */
const JOURNAL = '/workspace/.longhaul';
/** A file up to this size is read by a command, which sees it at one moment. */
const READ_BYTES = 1024 * 1024;

export interface DaytonaOptions {
  apiKey: string;
  /** Absent: the vendor's cloud. */
  apiUrl?: string;
  /** Region; absent: the organisation's. */
  target?: string;
  /** The sandboxes are virtual machines, which the vendor can freeze with their memory. */
  memoryPause?: boolean;
  /** The vendor destroys what nobody extended for so long; absent: a week. */
  maxIdleMs?: number;
  /** Environment variable → name of a secret that the vendor keeps and puts into requests to the secret's hosts. */
  secrets?: Record<string, string>;
}

const MAX_IDLE_MS = 7 * 24 * 3_600_000;

/** Sandboxes of Daytona, by the vendor's own SDK. Holds nothing that another worker could not find again. */
export class DaytonaProvider extends JournalCommands implements SandboxProvider {
  readonly name = NAME;
  private readonly options: DaytonaOptions;
  private readonly client: DaytonaClient;
  private readonly inside: Inside;

  constructor(options: DaytonaOptions) {
    super();
    this.options = options;
    this.client = new DaytonaClient(options);
    this.inside = (ref, argv, given) =>
      this.client.within(ref, 'run a command', given.signal, (sandbox) => runInside(sandbox, argv, given));
  }

  capabilities(): Promise<SandboxCapabilities> {
    const { memoryPause, secrets } = this.options;
    return Promise.resolve({
      isolation: memoryPause === true ? 'vm' : 'container',
      network: 'open',
      pause: memoryPause === true ? 'memory' : 'filesystem',
      snapshot: true,
      egress: 'domains',
      secrets: Object.keys(secrets ?? {}).length > 0 ? 'native' : 'none',
      ports: true,
      limits: { memory: 'enforced', pids: 'unavailable', cpu: 'enforced', disk: 'enforced', output: 'enforced' },
      notes: [
        'sandboxes of Daytona; tested with its SDK against a double of its wire format, not against its service',
        'a snapshot brings its own sizes; those of the environment hold for images',
        'the network is filtered by Daytona, by domain or address',
      ],
    });
  }

  async create(spec: SandboxSpec, key: string, signal: AbortSignal): Promise<SandboxRef> {
    const id = sandboxName(spec.owner, key);
    const { maxIdleMs = MAX_IDLE_MS, secrets = {} } = this.options;
    const params = createParams(spec, { key, maxIdleMs, secrets, nowMs: Date.now() });
    const made = await this.client.ask('create a sandbox', signal, async (daytona) => {
      try {
        return await daytona.create(params, { timeout: CREATE_S });
      } catch (error) {
        // The name is taken: by an earlier try, or by another worker's at this moment.
        if (statusOf(error) === 409) return null;
        throw error;
      }
    });
    const sandbox = made ?? (await this.client.find(id, signal));
    if (sandbox === null)
      throw new LonghaulError('sandbox_unavailable', 'the name is taken by a sandbox on its way out');
    if (phaseOf(sandbox.state) === 'broken' && sandbox.recoverable !== true) {
      await this.end(sandbox, signal);
      throw new LonghaulError('sandbox_unavailable', `could not be made: ${sandbox.errorReason ?? sandbox.state}`);
    }
    await this.wake(sandbox, signal);
    try {
      await this.client.ask('prepare a sandbox', signal, () => prepare(sandbox, spec, signal));
    } catch (error) {
      // It could not be used, and whoever asks again with other wishes would get it.
      if (error instanceof LonghaulError && !error.retryable && made !== null) await this.end(sandbox, signal);
      throw error;
    }
    this.client.remember(sandbox);
    return { provider: NAME, id, meta: {} };
  }

  async get(ref: SandboxRef, signal: AbortSignal): Promise<SandboxInfo | null> {
    const found = await this.client.find(requireName(ref.id), signal);
    return found === null ? null : infoOf(NAME, found);
  }

  async *list(owner: string, signal: AbortSignal): AsyncIterable<SandboxInfo> {
    // Pages are asked for one by one, each under its own deadline.
    const pages = await this.client.ask('list sandboxes', signal, (daytona) =>
      Promise.resolve(daytona.list({ labels: { [LABEL.owner]: owner }, limit: LIST_PAGE })),
    );
    for (;;) {
      const next = await this.client.ask('list sandboxes', signal, () => pages.next());
      if (next.done === true) return;
      const info = infoOf(NAME, next.value);
      if (info !== null && info.owner === owner) yield info;
    }
  }

  async extend(ref: SandboxRef, ttlMs: number, signal: AbortSignal): Promise<void> {
    const sandbox = await this.client.require(ref, signal);
    const owner = sandbox.labels[LABEL.owner] ?? '';
    const minutes = ttlMinutes(ttlMs, this.options.maxIdleMs ?? MAX_IDLE_MS);
    await this.client.ask('extend the lease', signal, async () => {
      // First the vendor's own limit: an early death is worse than a late one.
      await sandbox.setTtl(minutes);
      await sandbox.setLabels({ ...sandbox.labels, ...leaseLabels(owner, Date.now() + ttlMs) });
    });
  }

  async pause(ref: SandboxRef, signal: AbortSignal, options: { keepMemory?: boolean } = {}): Promise<boolean> {
    const keepsMemory = options.keepMemory === true;
    if (keepsMemory && this.options.memoryPause !== true) throw unsupported(NAME, 'keep their memory over a pause');
    const sandbox = await this.client.find(requireName(ref.id), signal);
    if (sandbox === null || phaseOf(sandbox.state) !== 'running') return false;
    return this.client.ask('pause', signal, async () => {
      try {
        await (keepsMemory ? sandbox.pause(CHANGE_S) : sandbox.stop(CHANGE_S));
        return true;
      } catch (error) {
        if (statusOf(error) === 404) return false;
        if (statusOf(error) !== 409) throw error;
        // Somebody else was faster, or it is busy with something that takes a while.
        await sandbox.refreshData();
        if (phaseOf(sandbox.state) === 'running') throw error;
        return false;
      }
    });
  }

  async resume(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    return this.wake(await this.client.require(ref, signal), signal);
  }

  /** False when it ran already. */
  private async wake(sandbox: Sandbox, signal: AbortSignal): Promise<boolean> {
    const phase = phaseOf(sandbox.state);
    if (phase === 'running') return false;
    if (phase === 'broken' && sandbox.recoverable !== true) {
      throw new LonghaulError('sandbox_lost', `the sandbox is broken: ${sandbox.errorReason ?? sandbox.state}`);
    }
    await this.client.ask('wake', signal, async () => {
      if (phase === 'falling_asleep') await sandbox.waitUntilStopped(CHANGE_S);
      if (phase === 'waking') return sandbox.waitUntilStarted(CREATE_S);
      try {
        await (phase === 'broken' ? sandbox.recover(CREATE_S) : sandbox.start(CREATE_S));
      } catch (error) {
        // Another worker wakes it, too.
        if (statusOf(error) !== 409) throw error;
        await sandbox.refreshData();
        await sandbox.waitUntilStarted(CREATE_S);
      }
    });
    this.client.remember(sandbox);
    return true;
  }

  async destroy(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    const sandbox = await this.client.find(requireName(ref.id), signal);
    return sandbox === null ? false : await this.end(sandbox, signal);
  }

  private end(sandbox: Sandbox, signal: AbortSignal): Promise<boolean> {
    this.client.forget(sandbox.name);
    return this.client.ask('destroy', signal, async () => {
      try {
        await sandbox.delete(CHANGE_S, true);
        return true;
      } catch (error) {
        if (statusOf(error) === 404) return false;
        throw error;
      }
    });
  }

  protected withJournal<T>(
    ref: SandboxRef,
    signal: AbortSignal,
    work: (journal: Journal) => Promise<T>,
    isStart = false,
  ): Promise<T> {
    return this.client.within(ref, 'run a command', signal, async (sandbox) => {
      const env = { ...sandbox.env, ...(isStart ? await this.placeholders(sandbox, signal) : {}) };
      const transport: ConstructorParameters<typeof Journal>[0]['transport'] = {
        run: async (argv, { timeoutMs, maxBytes, signal: inner }) => {
          const script = `exec ${argv.map(quoted).join(' ')} < /dev/null`;
          const answer = Buffer.from(await runScript(sandbox, script, timeoutMs, inner));
          if (answer.length <= maxBytes) return answer;
          throw new LonghaulError('sandbox_unavailable', 'the sandbox answered too much');
        },
        stage: (path, content, inner) => upload(sandbox, path, content, inner),
      };
      return work(new Journal({ transport, root: JOURNAL, framing: 'text', env }));
    });
  }

  /** What the vendor put into the environment in place of its secrets: random words that are none themselves. */
  private async placeholders(sandbox: Sandbox, signal: AbortSignal): Promise<Record<string, string>> {
    const names = Object.keys(this.options.secrets ?? {});
    if (names.length === 0) return {};
    const lines = await runScript(
      sandbox,
      `for n in ${names.map(quoted).join(' ')}; do printenv "$n" || echo; done`,
      10_000,
      signal,
    );
    const values = lines.split('\n');
    return Object.fromEntries(names.map((name, index) => [name, values[index] ?? '']));
  }

  private within(ref: SandboxRef, signal: AbortSignal): Within {
    return (what, work) => this.client.within(ref, what, signal, work);
  }

  async readFile(ref: SandboxRef, path: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    const head = await readFile(this.inside, ref, path, Math.min(maxBytes, READ_BYTES), signal);
    if (head.length < READ_BYTES || maxBytes === READ_BYTES) return head;
    const pieces: Uint8Array[] = [];
    let sizeBytes = 0;
    for await (const piece of this.readStream(ref, path, signal)) {
      pieces.push(piece.subarray(0, maxBytes - sizeBytes));
      sizeBytes += piece.length;
      if (sizeBytes >= maxBytes) break;
    }
    return Buffer.concat(pieces);
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

  async *readStream(ref: SandboxRef, path: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
    const found = await this.stat(ref, path, signal);
    yield* readStream(this.within(ref, signal), path, found, signal);
  }

  writeStream(ref: SandboxRef, path: string, content: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<number> {
    requireAbsolute(path);
    return writeStream(this.within(ref, signal), path, content, signal);
  }

  async remove(ref: SandboxRef, path: string, signal: AbortSignal): Promise<boolean> {
    requireAbsolute(path);
    return remove(this.within(ref, signal), path, signal);
  }

  snapshot(ref: SandboxRef, key: string, signal: AbortSignal): Promise<SnapshotRef> {
    return saveSnapshot(this.client, ref, key, signal);
  }

  deleteSnapshot(snapshot: SnapshotRef, signal: AbortSignal): Promise<boolean> {
    return deleteSnapshot(this.client, snapshot, signal);
  }

  listSnapshots(owner: string, signal: AbortSignal): AsyncIterable<SnapshotInfo> {
    return listSnapshots(this.client, NAME, owner, signal);
  }

  async setNetwork(ref: SandboxRef, network: SandboxNetwork, signal: AbortSignal): Promise<void> {
    const settings = networkSettings(network);
    const sandbox = await this.client.require(ref, signal);
    await this.client.ask('change the network', signal, () => sandbox.updateNetworkSettings(settings));
  }

  egressPoint(): Promise<EgressPoint | null> {
    return Promise.resolve(null);
  }

  async openPort(ref: SandboxRef, port: number, signal: AbortSignal): Promise<PortTarget> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new LonghaulError('sandbox_invalid', 'must be from 1 to 65535', { field: 'port' });
    }
    const sandbox = await this.client.require(ref, signal);
    const { url, token } = await this.client.ask('open a port', signal, () => sandbox.getPreviewLink(port));
    return { type: 'url', url, headers: { 'x-daytona-preview-token': token } };
  }
}
