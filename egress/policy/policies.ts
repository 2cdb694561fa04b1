import { setTimeout as delay } from 'node:timers/promises';
import type { Registry } from 'prom-client';
import { LIMITS } from '../../contracts/limits.ts';
import { listenOn } from '../../db/listen.ts';
import type { Pool } from '../../db/pool.ts';
import { expireEgressApprovals } from '../../db/queries/egress-approvals.ts';
import { wasCredentialUsed } from '../../db/queries/egress-requests.ts';
import { CREDENTIALS_CHANNEL } from '../../db/queries/credentials.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { SecretSource } from '../../vault/source.ts';
import { PolicyMetrics } from '../audit/metrics.ts';
import { SecurityRecorder } from '../audit/security.ts';
import { AuditWriter } from '../audit/writer.ts';
import { ownerOf, type EgressPolicies, type PolicyEngine, type SandboxIdentity } from '../decision.ts';
import type { ServiceAddresses } from '../services/config.ts';
import { OwnServices } from '../services/services.ts';
import { Asks } from './asks.ts';
import type { CompileOptions } from './compile.ts';
import type { Deps } from './deps.ts';
import { Engine } from './engine.ts';
import { PlaceholderWatch } from './placeholders.ts';
import { Recorder } from './recorder.ts';
import { SessionState } from './session-state.ts';

export interface PolicyOptions extends CompileOptions {
  pool: Pool;
  databaseUrl: string;
  logger: Logger;
  registry: Registry;
  secrets: SecretSource;
  services: ServiceAddresses;
  /** How long a request waits for a person. */
  holdMs: number;
}

/** A session that nobody told of is read again after this long. */
const STALE_MS = 15_000;
const SWEEP_MS = 30_000;
const SWEEP_ROWS = 100;
const LISTEN_AGAIN_MS = 1_000;

/** The policies of all sandboxes of this broker, from Postgres. */
export class Policies implements EgressPolicies {
  readonly #options: PolicyOptions;
  readonly #deps: Deps;
  readonly #sessions = new Map<string, Promise<SessionState>>();
  readonly #reloads = new Map<string, Promise<void>>();
  /** Sandboxes that are open, by session. */
  readonly #open = new Map<string, number>();
  readonly #end = new AbortController();
  readonly #background: Promise<void>[];
  #tell: (sessionId: string) => void = () => undefined;

  constructor(options: PolicyOptions) {
    this.#options = options;
    const { pool, logger, registry, secrets } = options;
    const writer: AuditWriter = new AuditWriter(pool, logger, { onCounted: () => metrics.folded() });
    const metrics = new PolicyMetrics(registry, () => writer.waiting);
    const security = new SecurityRecorder(pool, logger, metrics);
    const asks = new Asks(pool, Math.min(options.holdMs, LIMITS.egressHoldMs));
    const [watch, services] = [new PlaceholderWatch(pool), new OwnServices(pool, options.services)];
    this.#deps = { pool, logger, secrets, writer, security, metrics, asks, watch, services };
    this.#background = [this.#listen(), this.#sweep()];
  }

  async open(sandbox: SandboxIdentity): Promise<PolicyEngine> {
    const { sandboxId } = sandbox;
    const sessionId = ownerOf(sandbox);
    let last = await this.#session(sessionId, sandbox);
    await this.#deps.writer.open(sandboxId);
    this.#open.set(sessionId, (this.#open.get(sessionId) ?? 0) + 1);
    // Values that come back are found from the first answer on; what cannot be had now is asked for when it is used.
    last.resolveAll().catch((error: unknown) => {
      this.#deps.logger.warn({ err: error, sessionId }, 'values of a session are not there yet');
    });
    const engine = new Engine(this.#deps, sandbox, new Recorder(this.#deps, sandbox), {
      state: async () => {
        last = await this.#fresh(sessionId);
        return last;
      },
      last: () => last,
    });
    const dispose = engine.dispose.bind(engine);
    engine.dispose = () => {
      dispose();
      this.#deps.writer.release(sandboxId);
      this.#closed(sessionId);
    };
    return engine;
  }

  async refresh(sessionId: string): Promise<void> {
    this.#deps.asks.forget(sessionId);
    if (this.#sessions.has(sessionId)) await this.#reload(sessionId);
  }

  onRulesChanged(tell: (sessionId: string) => void): void {
    this.#tell = tell;
  }

  async revoke(sessionId: string): Promise<void> {
    this.#deps.services.forget(sessionId);
    const held = this.#sessions.get(sessionId);
    if (held === undefined) return this.#options.secrets.forget(sessionId);
    (await held).forget();
    if (!this.#open.has(sessionId)) this.#sessions.delete(sessionId);
  }

  async redact(sessionId: string, texts: string[]): Promise<{ texts: string[]; redactions: number }> {
    const state = await this.#fresh(sessionId);
    const wasOver = state.isOver;
    await state.resolveAll((name) => wasCredentialUsed(this.#options.pool, sessionId, name));
    const { matcher } = state;
    const results = texts.map((text) => matcher.redact(text));
    if (wasOver) state.forget();
    // Nothing of a session without sandboxes is held.
    if (!this.#open.has(sessionId)) this.#drop(sessionId);
    return {
      texts: results.map(({ text }) => text),
      redactions: results.reduce((sum, { redactions }) => sum + redactions, 0),
    };
  }

  /** Work with what is held of a session, for a request of the broker itself; of a session without sandboxes nothing stays. */
  async use<T>(sessionId: string, work: (state: SessionState) => Promise<T>): Promise<T> {
    try {
      return await work(await this.#fresh(sessionId));
    } finally {
      if (!this.#open.has(sessionId)) this.#drop(sessionId);
    }
  }

  async reload(state: SessionState): Promise<void> {
    await state.reload(this.#options.pool, this.#options);
  }

  async close(): Promise<void> {
    this.#end.abort();
    await Promise.allSettled(this.#background);
    await this.#deps.security.close();
    await this.#deps.writer.close();
  }

  #session(sessionId: string, sandbox: SandboxIdentity = { sandboxId: '', sessionId }): Promise<SessionState> {
    const known = this.#sessions.get(sessionId);
    if (known !== undefined) return known;
    const loading = SessionState.load(this.#options.pool, sandbox, this.#options.secrets, this.#options);
    this.#sessions.set(sessionId, loading);
    loading.catch(() => this.#sessions.delete(sessionId));
    return loading;
  }

  /** As it is in Postgres, or was a few seconds ago: notices make changes known at once, this is for those that got lost. */
  async #fresh(sessionId: string): Promise<SessionState> {
    const state = await this.#session(sessionId);
    if (Date.now() - state.loadedAtMs > STALE_MS) {
      state.loadedAtMs = Date.now();
      this.#reload(sessionId).catch((error: unknown) => {
        this.#deps.logger.warn({ err: error, sessionId }, 'a session is not read again');
      });
    }
    return state;
  }

  /** One reading at a time; who asks meanwhile gets one that begins later. */
  async #reload(sessionId: string): Promise<void> {
    await this.#reloads.get(sessionId)?.catch(() => undefined);
    const running = this.#reloads.get(sessionId);
    if (running !== undefined) return running;
    const work = this.#readAgain(sessionId);
    this.#reloads.set(sessionId, work);
    try {
      await work;
    } finally {
      this.#reloads.delete(sessionId);
    }
  }

  async #readAgain(sessionId: string): Promise<void> {
    const state = await this.#session(sessionId);
    const before = state.rules;
    await state.reload(this.#options.pool, this.#options);
    if (state.rules !== before) this.#tell(sessionId);
  }

  #closed(sessionId: string): void {
    const left = (this.#open.get(sessionId) ?? 1) - 1;
    if (left > 0) {
      this.#open.set(sessionId, left);
      return;
    }
    this.#open.delete(sessionId);
    this.#drop(sessionId);
  }

  #drop(sessionId: string): void {
    this.#deps.services.forget(sessionId);
    this.#sessions.delete(sessionId);
    this.#options.secrets.forget(sessionId);
  }

  async #listen(): Promise<void> {
    const { signal } = this.#end;
    while (!signal.aborted) {
      try {
        await listenOn(this.#options.databaseUrl, [CREDENTIALS_CHANNEL], (_channel, payload) => this.#heard(payload), {
          applicationName: 'longhaul-egress-listen',
          signal,
          onReady: () => this.#refreshAll(),
        });
      } catch (error) {
        this.#deps.logger.warn({ err: error }, 'changes of credentials are not heard; listening again');
        await delay(LISTEN_AGAIN_MS, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  #heard(payload: string): void {
    const [kind, id = ''] = payload.split(':', 2);
    if (kind === 'credential') this.#options.secrets.invalidate(id);
    if (kind === 'session' && this.#sessions.has(id)) this.#refreshSoon(id);
    if (kind === 'credential' || kind === 'team') this.#refreshAll();
  }

  #refreshAll(): void {
    for (const sessionId of this.#sessions.keys()) this.#refreshSoon(sessionId);
  }

  #refreshSoon(sessionId: string): void {
    this.refresh(sessionId).catch((error: unknown) => {
      this.#deps.logger.warn({ err: error, sessionId }, 'a session is not read again');
    });
  }

  /** Questions that nobody answered in time. */
  async #sweep(): Promise<void> {
    const { signal } = this.#end;
    while (!signal.aborted) {
      await delay(SWEEP_MS, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      await expireEgressApprovals(this.#options.pool, SWEEP_ROWS).catch((error: unknown) => {
        this.#deps.logger.warn({ err: error }, 'old questions are not closed; tried again');
      });
    }
  }
}
