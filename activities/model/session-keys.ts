import type { Pool } from '../../db/pool.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { mintVirtualKey } from '../../db/queries/virtual-keys.ts';
import { LIMITS } from '../../contracts/limits.ts';

interface Held {
  key: string;
  expiresAtMs: number;
}

/**
 * Virtual keys of the sessions this worker serves. The clear key lives in memory only: a worker that starts anew mints
 * a new one, and all of a session's keys are revoked when it ends.
 */
export class SessionKeys {
  private readonly held = new Map<string, Held>();
  private readonly pool: Pool;
  private readonly maxHeld = 2_000;

  constructor(pool: Pool) {
    this.pool = pool;
  }

  async keyOf(session: SessionForTurn): Promise<string> {
    const known = this.held.get(session.id);
    if (known !== undefined && known.expiresAtMs > Date.now() + LIMITS.modelTotalMs) return known.key;
    const expiresAtMs = Date.now() + LIMITS.virtualKeyTtlMs;
    const { key } = await mintVirtualKey(this.pool, {
      teamId: session.teamId,
      userId: session.createdBy,
      sessionId: session.id,
      agentId: session.agentId,
      agentVersion: session.agentVersion,
    });
    this.held.delete(session.id);
    this.held.set(session.id, { key, expiresAtMs });
    const oldest = this.held.keys().next().value;
    if (this.held.size > this.maxHeld && oldest !== undefined) this.held.delete(oldest);
    return key;
  }

  /** A key for one turn, to be given to who runs it: it ends with the turn, whatever becomes of this worker. */
  async mintForTurn(session: SessionForTurn, turn: number, threadId?: string): Promise<{ id: string; key: string }> {
    return mintVirtualKey(this.pool, {
      teamId: session.teamId,
      userId: session.createdBy,
      sessionId: session.id,
      agentId: session.agentId,
      agentVersion: session.agentVersion,
      turn,
      ...(threadId === undefined ? {} : { threadId }),
    });
  }

  forget(sessionId: string): void {
    this.held.delete(sessionId);
  }
}
