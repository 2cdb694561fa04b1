import type { IncomingHttpHeaders } from 'node:http';
import type { AgentDefinition } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Queryable } from '../../db/pool.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import type { SessionTokenPurpose } from '../../db/queries/session-tokens.ts';
import { findSessionToken } from '../../db/queries/session-tokens.ts';
import { keyOf } from '../auth.ts';

/** Whose harness this is; the token alone says so, whatever the request claims (invariant 12). */
export interface HarnessCaller {
  tokenId: string;
  sessionId: string;
  teamId: string;
  agent: AgentDefinition;
}

/** Throws `missing_api_key` and `invalid_api_key`, the latter for a token that was revoked or whose session has ended, too. */
export async function authenticateHarness(
  db: Queryable,
  headers: IncomingHttpHeaders,
  purpose: SessionTokenPurpose,
): Promise<HarnessCaller> {
  const token = keyOf(headers);
  if (token === undefined) throw new LonghaulError('missing_api_key', 'the token of a session is needed');
  const row = await findSessionToken(db, token, purpose);
  if (row === undefined) {
    throw new LonghaulError('invalid_api_key', 'the token is not valid here, was revoked, or its session has ended');
  }
  const { agent } = await loadSessionForTurn(db, row.sessionId);
  return { tokenId: row.id, sessionId: row.sessionId, teamId: row.teamId, agent };
}
