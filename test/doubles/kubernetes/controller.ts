import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { SandboxProvider, SandboxRef } from '../../../activities/sandbox/port.ts';
import type { KubeObject, ObjectStore, WatchEvent } from './store.ts';

export const SANDBOXES = 'agents.x-k8s.io/sandboxes';
export const CLAIMS = 'extensions.agents.x-k8s.io/sandboxclaims';
export const POOLS = 'extensions.agents.x-k8s.io/sandboxwarmpools';
export const TEMPLATES = 'extensions.agents.x-k8s.io/sandboxtemplates';
export const PODS = '/pods';
export const CONFIG_MAPS = '/configmaps';

const MIB = 1024 * 1024;
const LIMITS = { memoryBytes: 512 * MIB, diskBytes: 512 * MIB, pids: 256, cpus: 2, ttlMs: 3_600_000 };
const signal = (): AbortSignal => AbortSignal.timeout(180_000);

interface PodSpec {
  volumes?: { name: string; configMap?: { name: string } }[];
  containers?: { volumeMounts?: { name: string; mountPath: string; subPath?: string }[] }[];
}
interface PodTemplate {
  metadata?: { labels?: Record<string, string> };
  spec?: PodSpec;
}

/** What the agent-sandbox controllers do, as far as one can see it from outside: pods are real sandboxes of this machine. */
export class Controller {
  private readonly store: ObjectStore;
  private readonly backing: SandboxProvider;
  private readonly refs = new Map<string, SandboxRef>();
  private readonly running = new Map<string, Promise<void>>();
  private readonly trustDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-trust-'));
  private isClosed = false;
  private readonly lost = new Set<string>();

  constructor(store: ObjectStore, backing: SandboxProvider) {
    this.store = store;
    this.backing = backing;
    store.on('change', (event) => this.onChange(event));
  }

  private onChange({ resource, type, object }: WatchEvent): void {
    const { name } = object.metadata;
    if (resource === SANDBOXES && type !== 'DELETED') this.enqueue(name);
    if (resource === CLAIMS && type === 'ADDED') this.assign(name);
    if (resource === POOLS && type !== 'DELETED') this.fill(name);
  }

  /** The sandbox a pod is, while it runs. */
  refOf(pod: string): SandboxRef | undefined {
    const object = this.store.find(PODS, pod);
    return object === undefined ? undefined : this.refs.get(pod);
  }

  private enqueue(name: string): void {
    const work = (this.running.get(name) ?? Promise.resolve()).then(() => this.reconcile(name));
    this.running.set(
      name,
      work.catch((error: unknown) => this.condition(name, 'Ready', 'False', 'DependenciesNotReady', String(error))),
    );
  }

  private async reconcile(name: string): Promise<void> {
    const sandbox = this.store.find(SANDBOXES, name);
    if (sandbox === undefined || this.isClosed || this.lost.has(name)) return;
    if (sandbox.metadata.deletionTimestamp !== undefined) return this.finalize(name);
    const isSuspended = sandbox.spec?.['operatingMode'] === 'Suspended';
    const hasPod = this.store.find(PODS, name) !== undefined;
    if (isSuspended && hasPod) {
      this.condition(name, 'Ready', 'False', 'SandboxSuspended');
      const ref = this.refs.get(name);
      if (ref !== undefined) await this.backing.pause(ref, signal());
      this.store.remove(PODS, name);
    }
    if (isSuspended) this.condition(name, 'Suspended', 'True', 'PodTerminated');
    if (!isSuspended && !hasPod) await this.startPod(sandbox);
  }

  private async startPod(sandbox: KubeObject): Promise<void> {
    const { name } = sandbox.metadata;
    const template = (sandbox.spec?.['podTemplate'] ?? {}) as PodTemplate;
    const known = this.refs.get(name);
    if (known === undefined) {
      const trust = this.trustOf(template.spec);
      const spec = {
        owner: 'double',
        labels: {},
        env: {},
        ...LIMITS,
        ...(trust === null ? {} : { trustBundleFile: trust }),
      };
      this.refs.set(name, await this.backing.create(spec, sandbox.metadata.uid ?? name, signal()));
    } else await this.backing.resume(known, signal());
    const labels = template.metadata?.labels ?? {};
    this.store.create(PODS, { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels }, spec: { ...template.spec } });
    this.condition(name, 'Suspended', 'False', 'Running');
    this.condition(name, 'Ready', 'True', 'DependenciesReady');
  }

  /** A file of a config map, mounted over the system's authorities. */
  private trustOf(spec: PodSpec | undefined): string | null {
    const mount = spec?.containers?.[0]?.volumeMounts?.find(
      (each) => each.mountPath === '/etc/ssl/certs/ca-certificates.crt',
    );
    const volume = spec?.volumes?.find((each) => each.name === mount?.name);
    if (mount?.subPath === undefined || volume?.configMap === undefined) return null;
    const map = this.store.get(CONFIG_MAPS, volume.configMap.name) as KubeObject & { data?: Record<string, string> };
    const file = path.join(this.trustDir, map.metadata.name);
    writeFileSync(file, map.data?.[mount.subPath] ?? '', { mode: 0o644 });
    return file;
  }

  private async finalize(name: string): Promise<void> {
    this.store.remove(PODS, name);
    const ref = this.refs.get(name);
    if (ref !== undefined) await this.backing.destroy(ref, signal());
    this.refs.delete(name);
    this.store.remove(SANDBOXES, name);
  }

  condition(name: string, type: string, status: string, reason: string, message = ''): void {
    const set = (object: KubeObject): void => {
      const before = (object.status?.['conditions'] ?? []) as { type: string }[];
      const lastTransitionTime = new Date().toISOString();
      const conditions = [
        ...before.filter((each) => each.type !== type),
        { type, status, reason, message, lastTransitionTime },
      ];
      object.status = { ...object.status, conditions };
    };
    const current = this.store.find(SANDBOXES, name);
    const conditions = (current?.status?.['conditions'] ?? []) as { type: string; status: string }[];
    if (conditions.some((each) => each.type === type && each.status === status)) return;
    this.store.change(SANDBOXES, name, set);
  }

  /** A claim gets a warm sandbox of its pool, or one that is made for it. */
  private assign(name: string): void {
    const claim = this.store.get(CLAIMS, name);
    const { warmPoolRef, additionalPodMetadata } = (claim.spec ?? {}) as {
      warmPoolRef?: { name: string };
      additionalPodMetadata?: { labels?: Record<string, string> };
    };
    const pool = this.store.find(POOLS, warmPoolRef?.name ?? '');
    if (pool === undefined) return;
    const warm = this.store
      .list(SANDBOXES)
      .find((each) => each.metadata.labels?.['agents.x-k8s.io/warm-pool-sandbox'] === pool.metadata.name);
    const chosen = warm?.metadata.name ?? this.make(pool, false);
    const labels = additionalPodMetadata?.labels ?? {};
    this.store.change(SANDBOXES, chosen, (sandbox) => {
      delete sandbox.metadata.labels?.['agents.x-k8s.io/warm-pool-sandbox'];
      sandbox.metadata.ownerReferences = [{ uid: claim.metadata.uid ?? '' }];
      const template = (sandbox.spec?.['podTemplate'] ?? {}) as PodTemplate;
      const spec = {
        ...sandbox.spec,
        podTemplate: { ...template, metadata: { labels: { ...template.metadata?.labels, ...labels } } },
      };
      sandbox.spec = spec;
    });
    this.store.change(PODS, chosen, (pod) => {
      pod.metadata.labels = { ...pod.metadata.labels, ...labels };
    });
    this.store.change(CLAIMS, name, (object) => {
      object.status = { sandbox: { name: chosen } };
    });
    this.fill(pool.metadata.name);
  }

  private made = 0;

  private make(pool: KubeObject, isWarm: boolean): string {
    this.made += 1;
    const name = `${pool.metadata.name}-${this.made}`;
    const template = this.store.get(TEMPLATES, ((pool.spec?.['sandboxTemplateRef'] ?? {}) as { name: string }).name);
    const labels = isWarm ? { 'agents.x-k8s.io/warm-pool-sandbox': pool.metadata.name } : {};
    const { podTemplate } = template.spec ?? {};
    this.store.create(SANDBOXES, { metadata: { name, labels }, spec: { podTemplate, operatingMode: 'Running' } });
    return name;
  }

  private fill(name: string): void {
    const pool = this.store.get(POOLS, name);
    const warm = this.store
      .list(SANDBOXES)
      .filter((each) => each.metadata.labels?.['agents.x-k8s.io/warm-pool-sandbox'] === name);
    for (let count = warm.length; count < Number(pool.spec?.['replicas'] ?? 1); count += 1) this.make(pool, true);
  }

  /** As the server: marked first, gone when its pod is. What a claim owns goes with it. */
  remove(resource: string, name: string): KubeObject {
    const object = this.store.get(resource, name);
    if (resource === SANDBOXES) {
      this.store.change(SANDBOXES, name, (each) => {
        each.metadata.deletionTimestamp ??= new Date().toISOString();
      });
      return this.store.find(SANDBOXES, name) ?? object;
    }
    this.store.remove(resource, name);
    for (const owned of this.store.list(SANDBOXES)) {
      if (owned.metadata.ownerReferences?.some((each) => each.uid === object.metadata.uid) !== true) continue;
      this.remove(SANDBOXES, owned.metadata.name);
    }
    return object;
  }

  /** A pod whose node died: its processes are gone, the controller makes another. */
  async loseNode(name: string): Promise<void> {
    const ref = this.refs.get(name);
    this.lost.add(name);
    this.condition(name, 'Ready', 'False', 'DependenciesNotReady');
    this.store.remove(PODS, name);
    if (ref !== undefined) await this.backing.pause(ref, signal());
  }

  recover(name: string): void {
    this.lost.delete(name);
    this.enqueue(name);
  }

  async close(): Promise<void> {
    for (const claim of this.store.list(CLAIMS)) this.remove(CLAIMS, claim.metadata.name);
    for (const pool of this.store.list(POOLS)) this.store.remove(POOLS, pool.metadata.name);
    for (const sandbox of this.store.list(SANDBOXES)) this.remove(SANDBOXES, sandbox.metadata.name);
    while (this.store.list(SANDBOXES).length > 0) {
      await Promise.all(this.running.values());
    }
    this.isClosed = true;
    rmSync(this.trustDir, { recursive: true, force: true });
  }
}
