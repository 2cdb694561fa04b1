import { type BackendName, parseSecretRef } from '../contracts/credentials.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';
import type { Pool } from '../db/pool.ts';
import { findSealedCredential, type SealedCredential } from '../db/queries/credential-secrets.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { VaultBackend } from './backends/port.ts';
import { PostgresBackend } from './backends/postgres.ts';
import { SYSTEM_CLOCK, type Clock } from './clock.ts';
import type { KeyRing } from './key-ring.ts';
import type { Outbound } from './outbound.ts';
import { refreshCredential } from './refresh.ts';

/** A secret as the broker puts it into a request. Never logged, stored or sent anywhere but to a bound host. */
export interface ResolvedSecret {
  value: string;
  version: number;
  /** When it stops working by itself; null: not known. */
  expiresAtMs: number | null;
}

/** Where the broker gets values from; the only place that opens them. */
export interface SecretSource {
  /**
   * The newest value. From memory while it is fresh; `minVersion` asks again when what is held is older. Throws
   * `credential_unavailable`, `credential_needs_reauth`, `credential_revoked` or `not_found`, none of which names a value.
   */
  resolve(credentialId: string, options?: { minVersion?: number }): Promise<ResolvedSecret>;
  /** Drops a value, as after an upstream refused it or its row changed. */
  invalidate(credentialId: string): void;
  /** Tells which session holds what, so that `forget` can drop what nobody else needs. */
  hold(sessionId: string, credentialIds: readonly string[]): void;
  /** Drops every value that only this session held. */
  forget(sessionId: string): void;
  close(): Promise<void>;
}

interface SourceOptions {
  /** Of its own: a token endpoint that is slow must not keep the broker's audit from being written. */
  pool: Pool;
  ring: KeyRing;
  outbound: Outbound;
  backends: ReadonlyMap<BackendName, VaultBackend>;
  logger: Logger;
  clock?: Clock;
}

interface Entry {
  outcome: Promise<ResolvedSecret>;
  /** 0 while it is being fetched. */
  freshUntilMs: number;
  version: number;
}

const SWEEP_MS = 15_000;

/** Values in memory: each fetched once for all who ask, held for a minute at most, a failure for seconds. */
export class MemorySecretSource implements SecretSource {
  readonly #options: SourceOptions;
  readonly #clock: Clock;
  readonly #sealed: PostgresBackend;
  readonly #entries = new Map<string, Entry>();
  readonly #holds = new Map<string, ReadonlySet<string>>();
  readonly #sweeping: NodeJS.Timeout;

  constructor(options: SourceOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#sealed = new PostgresBackend(options.pool, options.ring);
    this.#sweeping = setInterval(() => this.#sweep(), SWEEP_MS);
    this.#sweeping.unref();
  }

  async resolve(credentialId: string, options: { minVersion?: number } = {}): Promise<ResolvedSecret> {
    const known = this.#entries.get(credentialId);
    if (known !== undefined) {
      const isFresh = known.freshUntilMs === 0 || known.freshUntilMs > this.#clock.nowMs();
      if (isFresh && (known.version === 0 || known.version >= (options.minVersion ?? 0))) return known.outcome;
    }
    return this.#fetch(credentialId);
  }

  invalidate(credentialId: string): void {
    this.#entries.delete(credentialId);
  }

  hold(sessionId: string, credentialIds: readonly string[]): void {
    this.#holds.set(sessionId, new Set(credentialIds));
  }

  forget(sessionId: string): void {
    const ended = this.#holds.get(sessionId);
    this.#holds.delete(sessionId);
    const held = new Set([...this.#holds.values()].flatMap((ids) => [...ids]));
    for (const id of ended ?? []) if (!held.has(id)) this.#entries.delete(id);
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeping);
    this.#entries.clear();
    this.#holds.clear();
    await Promise.all([...this.#options.backends.values()].map((backend) => backend.close()));
    await this.#options.outbound.close();
  }

  /** How many values are held: for metrics and tests. */
  get size(): number {
    return this.#entries.size;
  }

  #fetch(credentialId: string): Promise<ResolvedSecret> {
    const entry: Entry = { outcome: this.#load(credentialId), freshUntilMs: 0, version: 0 };
    this.#entries.set(credentialId, entry);
    void this.#date(entry);
    return entry.outcome;
  }

  /** Settles how long an entry is good for. */
  async #date(entry: Entry): Promise<void> {
    try {
      const { version, expiresAtMs } = await entry.outcome;
      const end = expiresAtMs === null ? Number.POSITIVE_INFINITY : expiresAtMs - LIMITS.oauthRefreshAheadMs;
      const now = this.#clock.nowMs();
      entry.version = version;
      // A token that is about to end, and cannot be renewed now, is looked at again soon.
      const shortest = now + LIMITS.secretFailureTtlMs;
      entry.freshUntilMs = Math.max(Math.min(now + LIMITS.secretCacheTtlMs, end), shortest);
    } catch {
      // Whoever asked has the error.
      entry.freshUntilMs = this.#clock.nowMs() + LIMITS.secretFailureTtlMs;
    }
  }

  async #load(credentialId: string): Promise<ResolvedSecret> {
    const row = await this.#find(credentialId);
    if (row.secretRef !== null) return this.#fromBackend(row, row.secretRef);
    if (row.kind === 'mcp_oauth') return this.#token(row);
    return this.#opened(row);
  }

  async #find(credentialId: string): Promise<SealedCredential> {
    const row = await findSealedCredential(this.#options.pool, credentialId);
    if (row === undefined)
      throw new LonghaulError('credential_revoked', `credential ${credentialId} is not there any more`);
    return row;
  }

  async #opened(row: SealedCredential): Promise<ResolvedSecret> {
    const { value, expiresAtMs } = await this.#sealed.get({ teamId: row.teamId, path: row.id, field: null });
    return { value, version: row.version, expiresAtMs };
  }

  async #fromBackend(row: SealedCredential, secretRef: string): Promise<ResolvedSecret> {
    const ref = parseSecretRef(secretRef);
    const backend = ref === undefined ? undefined : this.#options.backends.get(ref.backend);
    if (ref === undefined || backend === undefined) {
      throw new LonghaulError('credential_unavailable', `the vault back end of ${secretRef} is not configured`);
    }
    const { value, expiresAtMs } = await backend.get({ teamId: row.teamId, path: ref.path, field: ref.field });
    return { value, version: row.version, expiresAtMs };
  }

  /** An access token, renewed when it is about to end. One that still works is given even when its renewal failed. */
  async #token(row: SealedCredential): Promise<ResolvedSecret> {
    const now = this.#clock.nowMs();
    const endsAtMs = row.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
    if (endsAtMs - LIMITS.oauthRefreshAheadMs > now) return this.#opened(row);
    if (row.state === 'active' && row.spec.refresh !== null) {
      const outcome = await refreshCredential({ ...this.#options, clock: this.#clock }, row.id, row.version).catch(
        (error: unknown) => {
          this.#options.logger.warn({ err: error, credentialId: row.id }, 'an access token could not be renewed');
          return undefined;
        },
      );
      const after = await this.#find(row.id);
      if (after.version > row.version) return this.#opened(after);
      if (endsAtMs <= now && after.state === 'active') {
        const reason = outcome === undefined ? 'in work' : outcome.kind;
        throw new LonghaulError(
          'credential_unavailable',
          `the access token of ${row.id} ended; its renewal: ${reason}`,
        );
      }
    }
    if (endsAtMs > now) return this.#opened(row);
    throw new LonghaulError(
      'credential_needs_reauth',
      `the access token of credential ${row.id} ended and cannot be renewed`,
    );
  }

  /** No value stays longer than it is fresh. */
  #sweep(): void {
    const now = this.#clock.nowMs();
    for (const [id, { freshUntilMs }] of this.#entries) {
      if (freshUntilMs !== 0 && freshUntilMs <= now) this.#entries.delete(id);
    }
  }
}
