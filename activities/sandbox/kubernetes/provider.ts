import { readFile as readHostFile } from 'node:fs/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { Journal, JournalCommands } from '../journal/index.ts';
import { listDir, readFile, refused, remove, requireAbsolute, stat, writeFile } from '../local/files.ts';
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
import type { ClusterOptions } from './api.ts';
import { Cluster } from './api.ts';
import type { KubernetesShape, Lease } from './objects.ts';
import {
  ANNOTATION,
  claimOf,
  DENY_ALL,
  LABEL,
  networkRule,
  ownerLabel,
  poolOf,
  requireName,
  sandboxName,
  SANDBOXES,
  sandboxOf,
  timestamp,
  trustConfigMap,
} from './objects.ts';
import { PodTransport, writeStream } from './pod-files.ts';
import { streamFromPod } from './pod-exec.ts';
import { connectPort } from './ports.ts';
import type { Target } from './target.ts';
import {
  behind,
  envOf,
  findTarget,
  infoOf,
  isDown,
  isFinished,
  isReady,
  isSuspended,
  kindOf,
  podOf,
  refOf,
  requireTarget,
  resourceOf,
  suspending,
  waking,
} from './target.ts';

const NAME = 'kubernetes';
/** A node may have to be added and an image pulled. */
const READY_MS = 5 * 60_000;
const SUSPENDED_MS = 2 * 60_000;
/** Beside the files, on the claim that outlives the pod. */
const JOURNAL = '/tmp/.longhaul';
const MAX_IDLE_MS = 7 * 24 * 3_600_000;
const BUNDLE_BYTES = 1024 * 1024;

export interface KubernetesOptions extends ClusterOptions, Partial<KubernetesShape> {
  /** The controller deletes what nobody extended for so long; absent: a week. */
  maxIdleMs?: number;
}

/** Sandboxes of the agent-sandbox controller in a cluster, by the official client. */
export class KubernetesProvider extends JournalCommands implements SandboxProvider {
  readonly name = NAME;
  private readonly cluster: Cluster;
  private readonly shape: KubernetesShape;
  private readonly maxIdleMs: number;
  private readonly pods: PodTransport;
  private readonly inside: Inside;

  constructor(options: KubernetesOptions) {
    super();
    this.cluster = new Cluster(options);
    this.shape = { ...options, defaultImage: options.defaultImage ?? 'debian:12' };
    this.maxIdleMs = options.maxIdleMs ?? MAX_IDLE_MS;
    this.pods = new PodTransport(this.cluster);
    this.inside = (ref, argv, given) =>
      this.within(ref, given.signal, (target) => this.pods.run(requirePod(target), argv, given));
  }

  capabilities(): Promise<SandboxCapabilities> {
    const { runtimeClassName } = this.shape;
    return Promise.resolve({
      isolation: 'container',
      network: 'open',
      pause: 'filesystem',
      snapshot: false,
      egress: 'addresses',
      secrets: 'none',
      ports: true,
      limits: { memory: 'enforced', pids: 'unavailable', cpu: 'enforced', disk: 'enforced', output: 'enforced' },
      notes: [
        'agent-sandbox of Kubernetes; tested by the official client against a double of the API, not on a cluster',
        runtimeClassName === undefined ? 'the cluster’s default runtime' : `runtime class ${runtimeClassName}`,
        'the network is filtered by NetworkPolicy: the cluster’s network must enforce it',
        'the number of processes is the kubelet’s to limit; the disk limit is the volume’s size',
        'no snapshots: suspended sandboxes keep their volume',
      ],
    });
  }

  async create(spec: SandboxSpec, key: string, signal: AbortSignal): Promise<SandboxRef> {
    if (spec.snapshot !== undefined) throw unsupported(NAME, 'start from a snapshot');
    const rule = networkRule(spec.network ?? { type: 'none' }, this.shape);
    const pool = poolOf(spec.image);
    const kind = pool === null ? 'sandbox' : 'claim';
    const name = sandboxName(spec.owner, key);
    const ref = refOf(NAME, kind, name);
    // Before any pod of it can run.
    await this.cluster.ensure('policy', DENY_ALL, signal);
    if (rule.policy !== null) await this.cluster.ensure('policy', rule.policy, signal);
    const trust = await this.trust(spec, pool !== null, signal);
    const lease = this.lease(spec.ttlMs);
    const body =
      pool === null
        ? sandboxOf(spec, key, this.shape, rule.label, lease, trust)
        : claimOf(spec, key, pool, rule.label, lease);
    const made = await this.cluster.create(resourceOf(kind), body, signal);
    // The name is taken: by an earlier try, by another worker's, or by one that is still on its way out.
    const known = made ?? (await this.cluster.find(resourceOf(kind), name, signal));
    if (known === null) throw new LonghaulError('sandbox_unavailable', 'the name is taken by a sandbox on its way out');
    const target = await behind(this.cluster, kind, known, signal);
    if (isSuspended(target.sandbox)) await this.resume(ref, signal);
    else await this.ready(ref, signal);
    return ref;
  }

  private lease(ttlMs: number): Lease {
    const now = Date.now();
    return { expiresAtMs: now + ttlMs, shutdownAtMs: now + Math.max(ttlMs, this.maxIdleMs) };
  }

  private async trust(spec: SandboxSpec, isPooled: boolean, signal: AbortSignal): Promise<string | undefined> {
    if (spec.trustBundleFile === undefined) return undefined;
    if (isPooled) {
      if (this.shape.templateTrust === true) return undefined;
      throw unsupported(NAME, 'from a warm pool be given authorities to trust: its template brings them');
    }
    const bundle = await readHostFile(spec.trustBundleFile, 'utf8');
    if (bundle.length > BUNDLE_BYTES)
      throw new LonghaulError('sandbox_invalid', 'is larger than 1 MiB', { field: 'trustBundleFile' });
    const { name, body } = trustConfigMap(bundle);
    await this.cluster.ensure('configMap', body, signal);
    return name;
  }

  /** Until the controller says Ready of it. */
  private async ready(ref: SandboxRef, signal: AbortSignal): Promise<void> {
    const deadlineMs = Date.now() + READY_MS;
    const resource = resourceOf(kindOf(ref));
    for (;;) {
      const target = await requireTarget(this.cluster, ref, signal);
      if (isReady(target.sandbox)) return;
      if (isFinished(target.sandbox)) throw new LonghaulError('sandbox_lost', 'the pod of the sandbox ended');
      const leftMs = deadlineMs - Date.now();
      const isNamed = target.sandbox !== null;
      const isChanged = await (isNamed
        ? this.cluster.follow(
            SANDBOXES,
            target.sandbox?.metadata.name ?? '',
            (now) => now === null || isReady(now) || isFinished(now),
            leftMs,
            signal,
          )
        : this.cluster.follow(
            resource,
            ref.id,
            (now) => now === null || (now.status?.sandbox?.name ?? '') !== '',
            leftMs,
            signal,
          ));
      if (!isChanged) throw new LonghaulError('sandbox_unavailable', 'the sandbox does not become ready');
    }
  }

  async get(ref: SandboxRef, signal: AbortSignal): Promise<SandboxInfo | null> {
    const found = await findTarget(this.cluster, ref, signal);
    return found === null ? null : infoOf(NAME, found);
  }

  async *list(owner: string, signal: AbortSignal): AsyncIterable<SandboxInfo> {
    const selector = `${LABEL.managed}=true,${LABEL.owner}=${ownerLabel(owner)}`;
    for (const kind of ['sandbox', 'claim'] as const) {
      let from: string | undefined;
      do {
        const page = await this.cluster.list(resourceOf(kind), selector, from, signal);
        for (const made of page.items) {
          if (made.metadata.deletionTimestamp !== undefined) continue;
          const info = infoOf(NAME, await behind(this.cluster, kind, made, signal));
          if (info.owner === owner) yield info;
        }
        from = page.next;
      } while (from !== undefined);
    }
  }

  async extend(ref: SandboxRef, ttlMs: number, signal: AbortSignal): Promise<void> {
    const kind = kindOf(ref);
    const { expiresAtMs, shutdownAtMs } = this.lease(ttlMs);
    const shutdownTime = timestamp(shutdownAtMs);
    const change = (): object => ({
      metadata: { annotations: { [ANNOTATION.expires]: String(expiresAtMs) } },
      spec: kind === 'claim' ? { lifecycle: { shutdownTime } } : { shutdownTime },
    });
    const result = await this.cluster.update(resourceOf(kind), requireName(ref.id), change, signal);
    if (result === 'gone') throw new LonghaulError('sandbox_not_found', `sandbox ${ref.id} does not exist`);
  }

  async pause(ref: SandboxRef, signal: AbortSignal, options: { keepMemory?: boolean } = {}): Promise<boolean> {
    if (options.keepMemory === true) throw unsupported(NAME, 'keep their memory over a pause');
    const name = (await findTarget(this.cluster, ref, signal))?.sandbox?.metadata.name;
    if (name === undefined) return false;
    if ((await this.cluster.update(SANDBOXES, name, suspending, signal)) !== 'changed') return false;
    if (await this.cluster.follow(SANDBOXES, name, isDown, SUSPENDED_MS, signal)) return true;
    throw new LonghaulError('sandbox_unavailable', 'the pod of the sandbox does not end');
  }

  async resume(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    const target = await requireTarget(this.cluster, ref, signal);
    if (isReady(target.sandbox)) return false;
    const name = target.sandbox?.metadata.name;
    if (name !== undefined) await this.cluster.update(SANDBOXES, name, waking, signal);
    await this.ready(ref, signal);
    return true;
  }

  async destroy(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    const kind = kindOf(ref);
    this.targets.delete(requireName(ref.id));
    if ((await this.cluster.find(resourceOf(kind), ref.id, signal)) === null) return false;
    return this.cluster.remove(resourceOf(kind), ref.id, signal);
  }

  /** Where commands of a sandbox run; asked for once, and again when something went wrong. */
  private readonly targets = new Map<string, Target>();

  /** Work in the pod. When it fails, the sandbox's state tells why. */
  private async within<T>(ref: SandboxRef, signal: AbortSignal, work: (target: Target) => Promise<T>): Promise<T> {
    const target = this.targets.get(requireName(ref.id)) ?? (await requireTarget(this.cluster, ref, signal));
    try {
      const result = await work(target);
      if (this.targets.size > 1_000) this.targets.clear();
      this.targets.set(ref.id, target);
      return result;
    } catch (error) {
      this.targets.delete(ref.id);
      const code = error instanceof LonghaulError ? error.code : null;
      if (signal.aborted || (code !== 'sandbox_unavailable' && code !== 'sandbox_not_found')) throw error;
      const now = await requireTarget(this.cluster, ref, signal);
      if (!isReady(now.sandbox))
        throw new LonghaulError('sandbox_lost', 'the sandbox is not running', { cause: error });
      if (code === 'sandbox_unavailable') throw error;
      throw new LonghaulError('sandbox_unavailable', 'the pod of the sandbox was made anew; ask again', {
        cause: error,
      });
    }
  }

  protected withJournal<T>(ref: SandboxRef, signal: AbortSignal, work: (journal: Journal) => Promise<T>): Promise<T> {
    return this.within(ref, signal, (target) => {
      const transport = this.pods.journal(requirePod(target));
      return work(new Journal({ transport, root: JOURNAL, framing: 'raw', env: envOf(target) }));
    });
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

  async *readStream(ref: SandboxRef, path: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
    const found = await this.stat(ref, path, signal);
    if (found?.type !== 'file') throw new LonghaulError('sandbox_invalid', `${path}: is no file`);
    const pod = await this.within(ref, signal, (target) => Promise.resolve(requirePod(target)));
    yield* streamFromPod(this.cluster, { pod, argv: ['cat', '--', path], signal }, (stderr) => refused(path, stderr));
  }

  async writeStream(
    ref: SandboxRef,
    path: string,
    content: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<number> {
    requireAbsolute(path);
    return this.within(ref, signal, (target) => writeStream(this.cluster, requirePod(target), path, content, signal));
  }

  remove(ref: SandboxRef, path: string, signal: AbortSignal): Promise<boolean> {
    return remove(this.inside, ref, path, signal);
  }

  snapshot(): Promise<SnapshotRef> {
    return Promise.reject(unsupported(NAME, 'be saved'));
  }

  deleteSnapshot(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async *listSnapshots(): AsyncIterable<SnapshotInfo> {}

  async setNetwork(ref: SandboxRef, network: SandboxNetwork, signal: AbortSignal): Promise<void> {
    const { label, policy } = networkRule(network, this.shape);
    const target = await requireTarget(this.cluster, ref, signal);
    if (policy !== null) await this.cluster.ensure('policy', policy, signal);
    const labels = { [LABEL.network]: label };
    // The sandbox first: a pod that is made anew must not have what it had before.
    const name = target.sandbox?.metadata.name ?? ref.id;
    await this.cluster.update(SANDBOXES, name, () => ({ spec: { podTemplate: { metadata: { labels } } } }), signal);
    if (isReady(target.sandbox)) await this.cluster.labelPod(requirePod(target), labels, signal);
  }

  egressPoint(): Promise<EgressPoint | null> {
    return Promise.resolve(null);
  }

  async openPort(ref: SandboxRef, port: number, signal: AbortSignal): Promise<PortTarget> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new LonghaulError('sandbox_invalid', 'must be from 1 to 65535', { field: 'port' });
    }
    const pod = requirePod(await requireTarget(this.cluster, ref, signal));
    return { type: 'stream', connect: () => connectPort(this.cluster, pod, port) };
  }
}

function requirePod(target: Target): string {
  const pod = podOf(target);
  if (pod !== null) return pod;
  throw new LonghaulError('sandbox_unavailable', 'no sandbox of the warm pool is assigned yet');
}
