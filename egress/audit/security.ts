import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import { withTransaction } from '../../db/pool.ts';
import type { SecurityEventKind } from '../../db/queries/security-events.ts';
import { insertSecurityEvent } from '../../db/queries/security-events.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { PolicyMetrics } from './metrics.ts';

/** What happened, without anything secret. */
export interface Incident {
  teamId: string;
  sessionId: string | null;
  sandboxId: string;
  kind: SecurityEventKind;
  message: string;
  host: string | null;
  egressRequestId: string;
  details: Record<string, unknown>;
}

const MINUTE_MS = 60_000;
const TRIES = 5;

/** Writes security events; a sandbox that makes them by the thousand is counted, but not written down each time. */
export class SecurityRecorder {
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #metrics: PolicyMetrics;
  readonly #recent = new Map<string, { sinceMs: number; count: number }>();
  readonly #running = new Set<Promise<void>>();

  constructor(pool: Pool, logger: Logger, metrics: PolicyMetrics) {
    this.#pool = pool;
    this.#logger = logger;
    this.#metrics = metrics;
  }

  /** Comes back when it is written, or cannot be: the request is refused either way. */
  async record(incident: Incident): Promise<void> {
    this.#metrics.security(incident.kind);
    if (!this.#mayWrite(incident.sessionId ?? incident.sandboxId)) return;
    const work = this.#write(newId('securityEvent'), incident);
    this.#running.add(work);
    await work;
    this.#running.delete(work);
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#running);
  }

  async #write(id: string, incident: Incident): Promise<void> {
    const { egressRequestId, ...rest } = incident;
    for (let attempt = 1; attempt <= TRIES; attempt += 1) {
      try {
        await withTransaction(this.#pool, (tx) => insertSecurityEvent(tx, { id, ...rest, egressRequestId }));
        return;
      } catch (error) {
        this.#logger.error(
          { err: error, sessionId: incident.sessionId, kind: incident.kind, attempt },
          'a security event is not written',
        );
      }
    }
  }

  #mayWrite(sessionId: string): boolean {
    const now = Date.now();
    const known = this.#recent.get(sessionId);
    if (known === undefined || now - known.sinceMs > MINUTE_MS) {
      for (const [id, { sinceMs }] of this.#recent) if (now - sinceMs > MINUTE_MS) this.#recent.delete(id);
      this.#recent.set(sessionId, { sinceMs: now, count: 1 });
      return true;
    }
    known.count += 1;
    return known.count <= LIMITS.securityEventsPerMinute;
  }
}
