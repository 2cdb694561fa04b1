import type { Socket } from 'node:net';
import type { EgressConfig, EgressLimits } from './config.ts';
import type { PolicyEngine, SandboxIdentity } from './decision.ts';
import { isOwnAddress, isPublicAddress } from './addresses.ts';
import type { Dialler } from './upstream/dialler.ts';
import { UpstreamPool } from './upstream/pool.ts';

/** Something that goes on and can be cut: a request, a tunnel. */
export interface Flow {
  /** Of `performance.now()`: the last byte in either direction. */
  activeAtMs: number;
  /** Bytes nobody reads go through it: a change of policy cannot reach it but by cutting it. */
  isOpaque: boolean;
  cut(code: string): void;
}

/** One sandbox as the broker knows it: its policy, its connections, what it has used. */
export class SandboxEgress {
  readonly identity: SandboxIdentity;
  readonly engine: PolicyEngine;
  readonly upstream: UpstreamPool;
  readonly #limits: EgressLimits;
  readonly #connections = new Set<Socket>();
  readonly #flows = new Set<Flow>();
  #requests = 0;
  #bytes = 0;

  constructor(
    identity: SandboxIdentity,
    engine: PolicyEngine,
    dialler: Dialler,
    { limits, ownPorts }: Pick<EgressConfig, 'limits' | 'ownPorts'>,
  ) {
    this.identity = identity;
    this.engine = engine;
    this.#limits = limits;
    this.upstream = new UpstreamPool(
      dialler,
      (address, target) =>
        isPublicAddress(address) ||
        // Whoever writes an environment opens networks of his own, not what the product of all teams stands on.
        (!(ownPorts.includes(target.port) && isOwnAddress(address)) && engine.addressAllowed(address, target)),
    );
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** False when it has as many connections as it may have. */
  admit(socket: Socket): boolean {
    if (this.#connections.size >= this.#limits.connectionsPerSandbox) return false;
    this.#connections.add(socket);
    socket.once('close', () => this.#connections.delete(socket));
    return true;
  }

  /** Counts one request; false when it was one too many. */
  countRequest(): boolean {
    this.#requests += 1;
    return this.#requests <= this.#limits.requestsPerSession;
  }

  /** Counts bytes; false when they were too many. */
  countBytes(count: number): boolean {
    this.#bytes += count;
    return this.#bytes <= this.#limits.bytesPerSession;
  }

  begin(flow: Flow): void {
    this.#flows.add(flow);
  }

  end(flow: Flow): void {
    this.#flows.delete(flow);
  }

  /** Cuts what has not moved for too long. */
  sweep(): void {
    const oldestMs = performance.now() - this.#limits.idleMs;
    for (const flow of this.#flows) if (flow.activeAtMs < oldestMs) flow.cut('idle');
  }

  /** The policy changed: what it cannot see is cut, and what it said about addresses is asked again. */
  renew(): void {
    for (const flow of this.#flows) if (flow.isOpaque) flow.cut('policy_changed');
    this.upstream.renew();
  }

  /** Cuts everything. */
  close(): void {
    for (const flow of this.#flows) flow.cut('sandbox_gone');
    for (const socket of this.#connections) socket.destroy();
    this.upstream.close();
    this.engine.dispose();
  }
}
