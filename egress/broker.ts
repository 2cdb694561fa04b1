import { createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type net from 'node:net';
import { createSecureContext } from 'node:tls';
import type { Registry } from 'prom-client';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { EgressAccess } from './client.ts';
import type { EgressConfig } from './config.ts';
import type { ControlTarget, EgressPoint } from './control.ts';
import { ownerOf, type EgressPolicies } from './decision.ts';
import { LimitMetrics, type Capped } from './limit-metrics.ts';
import { listenInside } from './namespace/porter.ts';
import { Front } from './proxy/front.ts';
import { Resolver } from './resolver.ts';
import { SandboxEgress } from './sandbox.ts';
import { ensureAuthority, systemAuthorities, writeTrustBundle, type CertificateAuthority } from './tls/authority.ts';
import { Leaves } from './tls/leaves.ts';
import { Dialler } from './upstream/dialler.ts';

/** Where every sandbox finds the proxy, in its own network. */
const LISTENER = { host: '127.0.0.1', port: 3128 } as const;
const SWEEP_MS = 15_000;

/** A sandbox that should have a way out. */
export interface KnownSandbox {
  sandboxId: string;
  /** null: a sandbox of an E2B program. */
  sessionId: string | null;
  point: EgressPoint | null;
}

/** Who may go out, as it is written down: what a broker that died goes on with. */
export interface SandboxDirectory {
  /** Running sandboxes that were attached. */
  list(): Promise<KnownSandbox[]>;
  /** One of them; null when it runs no more. */
  find(sandboxId: string): Promise<KnownSandbox | null>;
}

export interface BrokerOptions {
  config: EgressConfig;
  policies: EgressPolicies;
  directory: SandboxDirectory;
  logger: Logger;
  registry: Registry;
}

interface Attached {
  egress: SandboxEgress;
  /** null: it comes to the public listener. */
  listener: { point: EgressPoint; server: net.Server } | null;
}

/** All sandboxes that may go out through this process. */
export class Broker implements ControlTarget {
  readonly #options: BrokerOptions;
  readonly #authority: CertificateAuthority;
  readonly #dialler: Dialler;
  readonly #front: Front;
  readonly #metrics: LimitMetrics;
  readonly #attached = new Map<string, Attached>();
  /** One change of a sandbox at a time. */
  readonly #changing = new Map<string, Promise<unknown>>();
  readonly #sweeping: NodeJS.Timeout;
  /** What keeps sandboxes from their way out, as it was logged. */
  readonly #complaints = new Map<string, string>();
  readonly trustBundleFile: string;
  #isClosed = false;

  constructor(options: BrokerOptions) {
    this.#options = options;
    const { config, logger } = options;
    this.#metrics = new LimitMetrics(options.registry, () => this.#inUse());
    this.#authority = ensureAuthority(config.folder);
    this.trustBundleFile = writeTrustBundle(config.trustBundleFile, this.#authority.certificate);
    const more = config.upstreamCaFile === null ? [] : [readFileSync(config.upstreamCaFile, 'utf8')];
    this.#dialler = new Dialler({
      resolver: new Resolver(config.hostsFile),
      connectMs: config.limits.connectMs,
      authorities: createSecureContext({ ca: [systemAuthorities(), ...more], minVersion: 'TLSv1.2' }),
      parentProxy: config.parentProxy,
    });
    this.#front = new Front({
      leaves: new Leaves(this.#authority),
      limits: config.limits,
      logger,
      identify: (username, password) => this.#identify(username, password),
    });
    options.policies.onRulesChanged?.((ownerId) => {
      for (const { egress } of this.#ofOwner(ownerId)) egress.renew();
    });
    this.#sweeping = setInterval(() => void this.#sweep(), SWEEP_MS);
    this.#sweeping.unref();
  }

  /** Lets a sandbox out; repeating it changes nothing. */
  attach(sandboxId: string, sessionId: string | null, point: EgressPoint | null): Promise<EgressAccess> {
    return this.#change(sandboxId, () => this.#attach(sandboxId, sessionId, point));
  }

  detach(sandboxId: string): Promise<boolean> {
    return this.#change(sandboxId, () => Promise.resolve(this.#detach(sandboxId)));
  }

  async refresh(ownerId: string): Promise<void> {
    await this.#options.policies.refresh(ownerId);
    for (const { egress } of this.#ofOwner(ownerId)) egress.renew();
  }

  async revoke(sessionId: string): Promise<void> {
    await this.#options.policies.revoke(sessionId);
    for (const { egress } of this.#ofOwner(sessionId)) await this.detach(egress.identity.sandboxId);
  }

  redact(sessionId: string, texts: string[]): Promise<{ texts: string[]; redactions: number }> {
    return this.#options.policies.redact(sessionId, texts);
  }

  caCertificate(): string {
    return this.#authority.certificate;
  }

  async metrics(): Promise<{ contentType: string; text: string }> {
    const { registry } = this.#options;
    return { contentType: registry.contentType, text: await registry.metrics() };
  }

  /**
   * Brings what runs in line with what is written down: listens again for sandboxes a broker before this one listened
   * for, tries again where it failed, and lets go of those that run no more.
   */
  async reconcile(): Promise<void> {
    const known = new Map((await this.#options.directory.list()).map((each) => [each.sandboxId, each]));
    for (const { sandboxId, sessionId, point } of known.values()) {
      const attached = this.#attached.get(sandboxId);
      if (this.#isClosed || (attached !== undefined && isSame(attached.listener?.point ?? null, point))) continue;
      try {
        await this.#attachAsWritten(sandboxId);
        this.#complaints.delete(sandboxId);
      } catch (error) {
        // Once for each reason: this is tried again every few seconds.
        const reason = error instanceof Error ? error.message : String(error);
        if (this.#complaints.get(sandboxId) === reason) continue;
        this.#complaints.set(sandboxId, reason);
        this.#options.logger.warn({ err: error, sandboxId, sessionId }, 'a sandbox has no way out');
      }
    }
    for (const sandboxId of this.#complaints.keys()) if (!known.has(sandboxId)) this.#complaints.delete(sandboxId);
    for (const sandboxId of this.#attached.keys()) {
      // Asked again: it may have come while the list was read.
      if (known.has(sandboxId) || (await this.#options.directory.find(sandboxId)) !== null) continue;
      await this.detach(sandboxId);
    }
  }

  /** What is written down may have changed since a list was read: a sandbox that woke has another network. */
  #attachAsWritten(sandboxId: string): Promise<void> {
    return this.#change(sandboxId, async () => {
      const row = await this.#options.directory.find(sandboxId);
      if (row !== null) await this.#attach(row.sandboxId, row.sessionId, row.point);
    });
  }

  /** Whose a request to the public listener is, by what it says. */
  async #identify(username: string, password: string): Promise<SandboxEgress | null> {
    const expected = Buffer.from(this.#passwordOf(username));
    const given = Buffer.from(password);
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return null;
    const known = this.#attached.get(username);
    if (known !== undefined) return known.listener === null ? known.egress : null;
    const row = await this.#options.directory.find(username);
    if (row === null || row.point !== null) return null;
    await this.attach(row.sandboxId, row.sessionId, null);
    return this.#attached.get(username)?.egress ?? null;
  }

  get front(): Front {
    return this.#front;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#sweeping);
    for (const sandboxId of this.#attached.keys()) this.#detach(sandboxId);
    this.#front.close();
    await this.#options.policies.close();
  }

  async #attach(sandboxId: string, sessionId: string | null, point: EgressPoint | null): Promise<EgressAccess> {
    if (this.#isClosed) throw new LonghaulError('sandbox_unavailable', 'the broker is stopping');
    const known = this.#attached.get(sandboxId);
    if (known !== undefined && known.egress.identity.sessionId !== sessionId) {
      throw new LonghaulError('sandbox_invalid', `${sandboxId} belongs to another session`, { field: 'sessionId' });
    }
    if (known !== undefined && isSame(known.listener?.point ?? null, point)) return this.#accessOf(sandboxId, point);
    if (known !== undefined) this.#detach(sandboxId);
    const access = this.#accessOf(sandboxId, point);
    const { policies, config } = this.#options;
    const server = point === null ? null : await listenInside(point, LISTENER.port);
    // From here on it takes connections: who comes before the policy is there is let go.
    if (server !== null) Object.assign(server, { allowHalfOpen: true });
    const waiting: net.Socket[] = [];
    const early = (socket: net.Socket): void => void waiting.push(socket.on('error', () => undefined));
    server?.on('connection', early);
    try {
      const engine = await policies.open({ sandboxId, sessionId });
      const ways = { dialler: this.#dialler, metrics: this.#metrics };
      const egress = new SandboxEgress({ sandboxId, sessionId }, engine, ways, config);
      this.#attached.set(sandboxId, {
        egress,
        listener: server === null || point === null ? null : { point, server },
      });
      server?.off('connection', early);
      server?.on('connection', (socket: net.Socket) => this.#front.accept(socket, egress));
      for (const socket of waiting) this.#front.accept(socket, egress);
    } catch (error) {
      server?.close();
      for (const socket of waiting) socket.destroy();
      throw error;
    }
    return access;
  }

  #detach(sandboxId: string): boolean {
    const attached = this.#attached.get(sandboxId);
    this.#attached.delete(sandboxId);
    attached?.listener?.server.close();
    attached?.egress.close();
    return attached !== undefined;
  }

  #accessOf(sandboxId: string, point: EgressPoint | null): EgressAccess {
    if (point !== null) return { type: 'listener', address: `${LISTENER.host}:${LISTENER.port}` };
    const { public: open } = this.#options.config;
    if (open === null) {
      const message = 'sandboxes elsewhere need LONGHAUL_EGRESS_PUBLIC: the broker listens for none';
      throw new LonghaulError('sandbox_unsupported', message);
    }
    const password = this.#passwordOf(sandboxId);
    return { type: 'proxy', ...open.advertised, isTls: open.tls !== null, username: sandboxId, password };
  }

  /**
   * Of one sandbox. Derived, not stored: every broker of an installation knows it after a restart, and no table holds it.
   */
  #passwordOf(sandboxId: string): string {
    return createHmac('sha256', `longhaul egress proxy\0${this.#options.config.token}`)
      .update(sandboxId)
      .digest('base64url');
  }

  #inUse(): Record<Capped, number> {
    const sum = { connections: 0, requests: 0, sockets: 0 };
    for (const { egress } of this.#attached.values()) {
      sum.connections += egress.connections;
      sum.requests += egress.flows;
      sum.sockets += egress.upstream.sockets;
    }
    return sum;
  }

  *#ofOwner(ownerId: string): Iterable<Attached> {
    for (const each of Array.from(this.#attached.values())) if (ownerOf(each.egress.identity) === ownerId) yield each;
  }

  #change<T>(sandboxId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#changing.get(sandboxId) ?? Promise.resolve();
    const now = before.then(work, work);
    const settled: Promise<unknown> = now
      .catch(() => undefined)
      .finally(() => {
        if (this.#changing.get(sandboxId) === settled) this.#changing.delete(sandboxId);
      });
    this.#changing.set(sandboxId, settled);
    return now;
  }

  async #sweep(): Promise<void> {
    for (const { egress } of this.#attached.values()) egress.sweep();
    try {
      await this.reconcile();
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'the sandboxes could not be looked through');
    }
  }
}

function isSame(a: EgressPoint | null, b: EgressPoint | null): boolean {
  if (a === null || b === null) return a === b;
  return a.pid === b.pid && a.startTime === b.startTime;
}
