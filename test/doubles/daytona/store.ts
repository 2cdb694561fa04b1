import { randomUUID } from 'node:crypto';
import type { SandboxProvider, SandboxRef, SnapshotRef } from '../../../activities/sandbox/port.ts';

/** States of the vendor that the double goes through. */
export type DoubleState =
  | 'creating'
  | 'started'
  | 'starting'
  | 'stopping'
  | 'stopped'
  | 'pausing'
  | 'paused'
  | 'resuming'
  | 'archived'
  | 'snapshotting'
  | 'destroyed'
  | 'error';

export interface DoubleSandbox {
  id: string;
  name: string;
  state: DoubleState;
  recoverable: boolean;
  reason: string | undefined;
  labels: Record<string, string>;
  /** The body of the request that made it. */
  request: Record<string, unknown>;
  network: Record<string, unknown>;
  createdAtMs: number;
  destroyAtMs: number | null;
  ref: SandboxRef | null;
  /** What its last change of state waits for. */
  change: Promise<void>;
}

interface DoubleSnapshot {
  id: string;
  name: string;
  ref: SnapshotRef;
  createdAtMs: number;
}

const MIB = 1024 * 1024;
const LIMITS = { memoryBytes: 512 * MIB, diskBytes: 512 * MIB, pids: 256, cpus: 2, ttlMs: 3_600_000 };
const signal = (): AbortSignal => AbortSignal.timeout(180_000);

/** The sandboxes of one account: names are unique, and each is a real sandbox of this machine. */
export class DoubleStore {
  readonly backing: SandboxProvider;
  readonly sandboxes = new Map<string, DoubleSandbox>();
  readonly snapshots = new Map<string, DoubleSnapshot>();
  /** How many sandboxes were ever made. */
  made = 0;

  constructor(backing: SandboxProvider) {
    this.backing = backing;
  }

  find(idOrName: string): DoubleSandbox | undefined {
    const all = [...this.sandboxes.values()];
    const found = this.sandboxes.get(idOrName) ?? all.find((each) => each.name === idOrName);
    if (found?.destroyAtMs !== undefined && found.destroyAtMs !== null && found.destroyAtMs < Date.now()) {
      this.destroy(found);
    }
    return found?.state === 'destroyed' ? undefined : found;
  }

  create(request: Record<string, unknown>): DoubleSandbox {
    const id = randomUUID();
    const ttlMinutes = Number(request['ttlMinutes'] ?? 0);
    const made: DoubleSandbox = {
      id,
      name: typeof request['name'] === 'string' ? request['name'] : id,
      state: 'creating',
      recoverable: false,
      reason: undefined,
      labels: (request['labels'] ?? {}) as Record<string, string>,
      request,
      network: request,
      createdAtMs: Date.now(),
      destroyAtMs: ttlMinutes === 0 ? null : Date.now() + ttlMinutes * 60_000,
      ref: null,
      change: Promise.resolve(),
    };
    this.made += 1;
    this.sandboxes.set(id, made);
    const snapshot = typeof request['snapshot'] === 'string' ? this.snapshotOf(request['snapshot']) : undefined;
    this.move(made, 'started', async () => {
      const secrets = ((request['secrets'] ?? []) as Record<string, string>[]).flatMap((each) => Object.keys(each));
      const placeholders = secrets.map((name) => [name, `dtn_secret_${randomUUID().replaceAll('-', '')}`]);
      const env = { ...(request['env'] as Record<string, string> | undefined), ...Object.fromEntries(placeholders) };
      const from = snapshot === undefined ? {} : { snapshot: snapshot.ref };
      made.ref = await this.backing.create({ owner: 'double', labels: {}, env, ...LIMITS, ...from }, id, signal());
    });
    return made;
  }

  /** As the vendor: the answer comes before the change is over. */
  private move(sandbox: DoubleSandbox, to: DoubleState, work: () => Promise<unknown>): void {
    sandbox.change = this.change(sandbox, to, sandbox.change, work);
  }

  private async change(
    sandbox: DoubleSandbox,
    to: DoubleState,
    before: Promise<void>,
    work: () => Promise<unknown>,
  ): Promise<void> {
    await before;
    try {
      await work();
      if (sandbox.state !== 'destroyed') sandbox.state = to;
    } catch (error) {
      sandbox.state = 'error';
      sandbox.reason = String(error);
    }
  }

  start(sandbox: DoubleSandbox): void {
    sandbox.state = sandbox.state === 'paused' ? 'resuming' : 'starting';
    this.move(sandbox, 'started', () => this.backing.resume(required(sandbox), signal()));
  }

  stop(sandbox: DoubleSandbox): void {
    sandbox.state = 'stopping';
    this.move(sandbox, 'stopped', () => this.backing.pause(required(sandbox), signal()));
  }

  pause(sandbox: DoubleSandbox): void {
    sandbox.state = 'pausing';
    this.move(sandbox, 'paused', () => this.backing.pause(required(sandbox), signal(), { keepMemory: true }));
  }

  destroy(sandbox: DoubleSandbox): void {
    sandbox.state = 'destroyed';
    this.sandboxes.delete(sandbox.id);
    this.move(sandbox, 'destroyed', async () => {
      if (sandbox.ref !== null) await this.backing.destroy(sandbox.ref, signal());
    });
  }

  snapshot(sandbox: DoubleSandbox, name: string): void {
    const before = sandbox.state;
    sandbox.state = 'snapshotting';
    this.move(sandbox, before, async () => {
      const ref = await this.backing.snapshot(required(sandbox), name, signal());
      this.snapshots.set(name, { id: randomUUID(), name, ref, createdAtMs: Date.now() });
    });
  }

  snapshotOf(idOrName: string): DoubleSnapshot | undefined {
    return this.snapshots.get(idOrName) ?? [...this.snapshots.values()].find((each) => each.id === idOrName);
  }

  async removeSnapshot(snapshot: DoubleSnapshot): Promise<void> {
    this.snapshots.delete(snapshot.name);
    await this.backing.deleteSnapshot(snapshot.ref, signal());
  }

  async close(): Promise<void> {
    for (const sandbox of this.sandboxes.values()) {
      await sandbox.change;
      this.destroy(sandbox);
      await sandbox.change;
    }
    for (const snapshot of this.snapshots.values()) await this.removeSnapshot(snapshot);
  }
}

function required(sandbox: DoubleSandbox): SandboxRef {
  if (sandbox.ref === null) throw new Error('the sandbox was never made');
  return sandbox.ref;
}

/** A sandbox as the API shows it; lists leave out what only the single answer has. */
export function sandboxDto(sandbox: DoubleSandbox, toolboxProxyUrl: string, isListed: boolean): object {
  const { request, network } = sandbox;
  return {
    id: sandbox.id,
    organizationId: 'org-double',
    name: sandbox.name,
    user: 'daytona',
    labels: sandbox.labels,
    public: false,
    target: 'local',
    cpu: request['cpu'] ?? 1,
    gpu: 0,
    memory: request['memory'] ?? 1,
    disk: request['disk'] ?? 3,
    state: sandbox.state,
    errorReason: sandbox.reason,
    recoverable: sandbox.recoverable,
    autoStopInterval: request['autoStopInterval'] ?? 15,
    autoDestroyAt: sandbox.destroyAtMs === null ? undefined : new Date(sandbox.destroyAtMs).toISOString(),
    createdAt: new Date(sandbox.createdAtMs).toISOString(),
    updatedAt: new Date().toISOString(),
    snapshot: request['snapshot'] ?? 'daytonaio/sandbox',
    sandboxClass: 'container',
    toolboxProxyUrl,
    networkBlockAll: network['networkBlockAll'] ?? false,
    networkAllowList: network['networkAllowList'],
    domainAllowList: network['domainAllowList'],
    ...(isListed ? {} : { env: request['env'] ?? {}, outboundProxyUrl: request['outboundProxyUrl'] }),
  };
}

export function snapshotDto(snapshot: DoubleSnapshot): object {
  const { id, name, ref, createdAtMs } = snapshot;
  const createdAt = new Date(createdAtMs).toISOString();
  return { id, name, general: false, state: 'active', size: ref.sizeBytes / 1024 ** 3, createdAt };
}
