import type { Socket } from 'node:net';
import type { EgressConfig, EgressLimits } from './config.ts';
import type { PolicyEngine, SandboxIdentity } from './decision.ts';
import { isOwnAddress, isPublicAddress } from './addresses.ts';
import type { LimitMetrics } from './limit-metrics.ts';
import { EgressFailure } from './proxy/failure.ts';
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
  readonly #metrics: LimitMetrics;
  readonly #connections = new Set<Socket>();
  readonly #flows = new Set<Flow>();
  #requests = 0;
  #bytes = 0;

  constructor(
    identity: SandboxIdentity,
    engine: PolicyEngine,
    { dialler, metrics }: { dialler: Dialler; metrics: LimitMetrics },
    { limits, ownPorts }: Pick<EgressConfig, 'limits' | 'ownPorts'>,
  ) {
    this.identity = identity;
    this.engine = engine;
    this.#limits = limits;
    this.#metrics = metrics;
    this.upstream = new UpstreamPool({
      dialler,
      maxSockets: limits.socketsPerSandbox,
      onFull: () => metrics.reached('sockets'),
      isAllowed: (address, target) =>
        (isPublicAddress(address) && engine.addressDenied?.(address, target) !== true) ||
        // Whoever writes an environment opens networks of his own, not what the product of all teams stands on.
        (!(ownPorts.includes(target.port) && isOwnAddress(address)) && engine.addressAllowed(address, target)),
    });
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** False when it has as many connections as it may have. */
  admit(socket: Socket): boolean {
    if (this.#connections.size >= this.#limits.connectionsPerSandbox) {
      this.#metrics.reached('connections');
      return false;
    }
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

  get flows(): number {
    return this.#flows.size;
  }

  /** Throws when as much goes on as may go on at a time. What has begun has to be ended, however it went. */
  begin(flow: Flow): void {
    this.checkRoom();
    this.#flows.add(flow);
  }

  /** Throws when nothing more may begin now. */
  checkRoom(): void {
    const { flowsPerSandbox } = this.#limits;
    if (this.#flows.size < flowsPerSandbox) return;
    this.#metrics.reached('requests');
    const message = `${flowsPerSandbox} requests and tunnels of this sandbox are under way, as many as may be at a time (LONGHAUL_EGRESS_CONCURRENT). Wait for some to end, or make fewer at once.`;
    throw new EgressFailure(429, 'requests_at_once', message);
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
