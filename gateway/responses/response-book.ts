import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Pool } from '../../db/pool.ts';
import {
  deleteGatewayResponse,
  findGatewayResponse,
  insertGatewayResponse,
  type GatewayResponse,
} from '../../db/queries/gateway-responses.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Caller } from '../auth.ts';
import { throughOutages } from '../calls/call-journal.ts';

const REMEMBERED = 10_000;
const RESPONSE_ID = /^[\w-]{1,256}$/;

/** Knows whose the stored answers are: those of this process at once, all others from the database. */
export class ResponseBook {
  readonly #deps: { pool: Pool; logger: Logger; patienceMs: number; firstPollMs: number };
  readonly #own = new Map<string, GatewayResponse>();
  readonly #pending = new Set<Promise<void>>();

  constructor(deps: { pool: Pool; logger: Logger; patienceMs: number; firstPollMs: number }) {
    this.#deps = deps;
  }

  /** Resolves when the answer is in the database. */
  remember(row: GatewayResponse): Promise<void> {
    if (this.#own.size >= REMEMBERED) this.#own.clear();
    this.#own.set(keyOf(row.attribution.teamId, row.responseId), row);
    const { pool, patienceMs, firstPollMs } = this.#deps;
    const written = throughOutages(Date.now() + patienceMs, () => insertGatewayResponse(pool, row, firstPollMs));
    const done = written.catch((error: unknown) => {
      this.#deps.logger.error({ err: error, responseId: row.responseId }, 'a stored response was not remembered');
    });
    this.#pending.add(done);
    void done.finally(() => this.#pending.delete(done));
    return written;
  }

  /** The caller's answer. One of another team, or of another session for a session's key, does not exist. */
  async find(caller: Caller, responseId: string, field?: string): Promise<GatewayResponse> {
    const { teamId, sessionId } = caller.attribution;
    if (RESPONSE_ID.test(responseId)) {
      const known = this.#own.get(keyOf(teamId, responseId));
      // Whether an open one is settled is for the database to say.
      const row = known?.state === 'settled' ? known : await findGatewayResponse(this.#deps.pool, teamId, responseId);
      const found = row ?? known;
      const isVisible = caller.virtualKey === undefined || found?.attribution.sessionId === sessionId;
      if (found !== undefined && isVisible) return found;
    }
    const options = field === undefined ? {} : { field };
    throw new LonghaulError('not_found', `there is no response "${responseId.slice(0, 256)}" for this key`, options);
  }

  async forget(row: GatewayResponse): Promise<void> {
    const { teamId } = row.attribution;
    this.#own.delete(keyOf(teamId, row.responseId));
    await deleteGatewayResponse(this.#deps.pool, teamId, row.responseId);
  }

  /** Resolves when everything remembered so far is written. */
  async drain(): Promise<void> {
    await Promise.all(this.#pending);
  }
}

function keyOf(teamId: string, responseId: string): string {
  return `${teamId}\n${responseId}`;
}
