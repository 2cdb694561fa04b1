import type { Attribution } from '../../contracts/attribution.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import { deleteInBatches } from './retention.ts';

/** Whose a stored answer of the Responses protocol is, and who has it. */
export interface GatewayResponse {
  responseId: string;
  /** Of the call that made it. */
  attribution: Attribution;
  virtualKeyId: string | null;
  provider: string;
  /** null: an upstream that is known by the environment alone. */
  deployment: string | null;
  model: string;
  requestedModel: string;
  /** `open`: made in the background, and what it cost is not in the ledger yet. */
  state: 'open' | 'settled';
}

/** An open answer that is to be looked at. */
export interface OpenResponse extends GatewayResponse {
  ageMs: number;
}

const COLUMNS = `response_id, attribution, virtual_key_id, provider, deployment, model, requested_model, state`;

/** Remembers an answer; one that is known already stays as it is. */
export async function insertGatewayResponse(db: Queryable, row: GatewayResponse, firstPollMs: number): Promise<void> {
  await db.query(
    `INSERT INTO gateway_responses (team_id, ${COLUMNS}, next_poll_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + make_interval(secs => $10 / 1000.0))
     ON CONFLICT (team_id, response_id) DO NOTHING`,
    [
      row.attribution.teamId,
      row.responseId,
      JSON.stringify(row.attribution),
      row.virtualKeyId,
      row.provider,
      row.deployment,
      row.model,
      row.requestedModel,
      row.state,
      firstPollMs,
    ],
  );
}

/** An answer of this team's calls. */
export async function findGatewayResponse(
  db: Queryable,
  teamId: string,
  responseId: string,
): Promise<GatewayResponse | undefined> {
  const result = await db.query<Record<string, unknown>>(
    `SELECT ${COLUMNS} FROM gateway_responses WHERE team_id = $1 AND response_id = $2`,
    [teamId, responseId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<GatewayResponse>(result.rows[0]);
}

/** Closes an open answer; false when somebody else has: exactly one writes its ledger row, in the same transaction. */
export async function settleGatewayResponse(tx: Queryable, teamId: string, responseId: string): Promise<boolean> {
  const result = await tx.query(
    `UPDATE gateway_responses SET state = 'settled', next_poll_at = NULL
     WHERE team_id = $1 AND response_id = $2 AND state = 'open'`,
    [teamId, responseId],
  );
  return result.rowCount === 1;
}

export async function deleteGatewayResponse(db: Queryable, teamId: string, responseId: string): Promise<void> {
  await db.query('DELETE FROM gateway_responses WHERE team_id = $1 AND response_id = $2', [teamId, responseId]);
}

/** Open answers whose time to be looked at has come; each is given to one asker, and comes again later and later. */
export async function claimOpenResponses(
  db: Queryable,
  limit: number,
  pause: { firstMs: number; longestMs: number },
): Promise<OpenResponse[]> {
  const result = await db.query<Record<string, unknown>>(
    `UPDATE gateway_responses SET polls = polls + 1,
       next_poll_at = now() + make_interval(secs => least($2 * power(2, least(polls, 20)), $3) / 1000.0)
     WHERE (team_id, response_id) IN (
       SELECT team_id, response_id FROM gateway_responses WHERE state = 'open' AND next_poll_at <= now()
       ORDER BY next_poll_at LIMIT $1 FOR UPDATE SKIP LOCKED)
     RETURNING ${COLUMNS}, (extract(epoch FROM now() - created_at) * 1000)::bigint AS age_ms`,
    [limit, pause.firstMs, pause.longestMs],
  );
  return result.rows.map((row) => toCamel<OpenResponse>(row));
}

/** Forgets answers that no provider keeps any more, `batch` at once. Returns how many. */
export async function deleteOldGatewayResponses(db: Queryable, batch: number): Promise<number> {
  return deleteInBatches(
    db,
    `DELETE FROM gateway_responses WHERE (team_id, response_id) IN (
       SELECT team_id, response_id FROM gateway_responses
       WHERE created_at < now() - make_interval(secs => $1 / 1000.0) AND state = 'settled' ORDER BY created_at LIMIT $2)`,
    { olderThanMs: LIMITS.storedResponseTtlMs, batch },
  );
}
