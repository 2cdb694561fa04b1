import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxRef, SandboxSpec } from '../port.ts';
import type { ContainerOptions, Inspected, Lease } from './container.ts';
import { CONTAINER_NAME, containerBody, furniture, LEASE_FILE, leaseArchive, leaseOf } from './container.ts';
import type { Engine } from './engine.ts';
import { type PullPolicy, pullImage } from './images.ts';
import { statOutside } from './outside.ts';

/** How long a call waits for a container that is being removed or stopped. */
const SETTLE_MS = 20_000;

/** The life of one container, each step of which may be repeated. */
export class Containers {
  private readonly engine: Engine;
  private readonly options: ContainerOptions & { pull: PullPolicy };

  constructor(engine: Engine, options: ContainerOptions & { pull: PullPolicy }) {
    this.engine = engine;
    this.options = options;
  }

  /** Its name is the key: a second of it cannot be made. */
  private async make(name: string, spec: SandboxSpec, signal: AbortSignal): Promise<void> {
    const { image = this.options.image } = spec;
    if (this.options.pull === 'always' && spec.snapshot === undefined && (await this.inspect(name, signal)) === null) {
      await pullImage(this.engine, image, signal);
    }
    for (let isPulled = this.options.pull !== 'missing' || spec.snapshot !== undefined; ; isPulled = true) {
      try {
        const body = containerBody(spec, this.options);
        await this.engine.json('POST', '/containers/create', { signal, query: { name }, body, ok: [201, 409] });
        return;
      } catch (error) {
        const isMissing = error instanceof LonghaulError && error.field === 'image';
        if (isPulled || !isMissing) throw error;
        await pullImage(this.engine, image, signal);
      }
    }
  }

  /** Puts in what a container needs before its first start, and starts it: all of it may be done twice. */
  async begin(name: string, spec: SandboxSpec, signal: AbortSignal): Promise<void> {
    await this.putArchive(name, furniture(name, spec, this.options), signal);
    await this.engine.json('POST', `/containers/${name}/start`, { signal, ok: [204, 304] });
  }

  /** The container of this name: made, or found once whoever makes or removes it is done. */
  async obtain(name: string, spec: SandboxSpec, signal: AbortSignal): Promise<Inspected> {
    let found: Inspected | null = null;
    await this.until(async () => {
      await this.make(name, spec, signal);
      found = await this.inspect(name, signal);
      return found !== null && found.State.Status !== 'removing';
    }, signal);
    if (found === null) throw new LonghaulError('sandbox_unavailable', 'the sandbox was removed while it was made');
    return found;
  }

  async until(isTrue: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
    const deadlineMs = Date.now() + SETTLE_MS;
    while (!(await isTrue())) {
      signal.throwIfAborted();
      if (Date.now() > deadlineMs)
        throw new LonghaulError('sandbox_unavailable', 'the engine is busy with the sandbox');
      await delay(50);
    }
  }

  async stop(name: string, signal: AbortSignal): Promise<void> {
    await this.engine.json('POST', `/containers/${name}/kill`, { signal, ok: [204, 404, 409] });
    await this.until(async () => (await this.inspect(name, signal))?.State.Running !== true, signal);
  }

  async inspect(name: string, signal: AbortSignal): Promise<Inspected | null> {
    const route = `/containers/${name}/json`;
    const { status, body } = await this.engine.json<Inspected>('GET', route, { signal, ok: [200, 404] });
    return status === 404 ? null : body;
  }

  async require(ref: SandboxRef, signal: AbortSignal): Promise<Inspected> {
    if (!CONTAINER_NAME.test(ref.id)) throw notFound(ref);
    const found = await this.inspect(ref.id, signal);
    if (found === null || found.State.Status === 'removing') throw notFound(ref);
    return found;
  }

  async leaseOf(name: string, signal: AbortSignal): Promise<Lease | null> {
    const stat = await statOutside(this.engine, name, LEASE_FILE, signal);
    return stat === null ? null : leaseOf(stat);
  }

  putLease(name: string, lease: Lease, signal: AbortSignal): Promise<void> {
    return this.putArchive(name, leaseArchive(lease.expiresAtMs, lease.isPaused), signal);
  }

  private async putArchive(name: string, archive: Buffer, signal: AbortSignal): Promise<void> {
    const options = { signal, query: { path: '/' }, body: archive, ok: [200] };
    await this.engine.json('PUT', `/containers/${name}/archive`, options);
  }
}

/** The answer to whoever asks for what is gone. */
export function notFound(ref: SandboxRef): LonghaulError {
  return new LonghaulError('sandbox_not_found', `sandbox ${ref.id} does not exist`);
}
