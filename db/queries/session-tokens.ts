import { createHash, randomBytes } from 'node:crypto';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Every session token starts with it, so that it names its kind in logs of others and in secret scanners. */
export const SESSION_TOKEN_PREFIX = 'lhs_';

export type SessionTokenPurpose = 'mcp' | 'hook';

/** Who shows a token: one session and nothing else, whatever the request says. */
export interface SessionTokenRow {
  id: string;
  sessionId: string;
  teamId: string;
  expiresAt: Date;
}

/** Makes a token of 256 random bits for one session. The token itself is returned once and never stored. */
export async function mintSessionToken(
  db: Queryable,
  sessionId: string,
  purpose: SessionTokenPurpose,
  ttlMs: number = LIMITS.harnessKeyTtlMs,
): Promise<{ token: string; expiresAtMs: number }> {
  const token = SESSION_TOKEN_PREFIX + randomBytes(32).toString('base64url');
  const result = await db.query<{ expires_at: Date }>(
    `INSERT INTO session_tokens (id, token_hash, session_id, purpose, expires_at)
     VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5 / 1000.0)) RETURNING expires_at`,
    [newId('sessionToken'), hashOf(token), sessionId, purpose, ttlMs],
  );
  return { token, expiresAtMs: result.rows[0]?.expires_at.getTime() ?? 0 };
}

/** The row of a token that is neither revoked nor expired and whose session still goes on. */
export async function findSessionToken(
  db: Queryable,
  token: string,
  purpose: SessionTokenPurpose,
): Promise<SessionTokenRow | undefined> {
  if (!token.startsWith(SESSION_TOKEN_PREFIX)) return undefined;
  const result = await db.query(
    `SELECT k.id, k.session_id, s.team_id, k.expires_at FROM session_tokens k JOIN sessions s ON s.id = k.session_id
     WHERE k.token_hash = $1 AND k.purpose = $2 AND k.revoked_at IS NULL AND k.expires_at > now()
       AND s.status <> 'terminated' AND s.deleted_at IS NULL`,
    [hashOf(token), purpose],
  );
  return result.rows[0] === undefined ? undefined : toCamel<SessionTokenRow>(result.rows[0] as object);
}

/** Ends every token of a session; a second call changes nothing. */
export async function revokeSessionTokens(db: Queryable, sessionId: string): Promise<void> {
  await db.query('UPDATE session_tokens SET revoked_at = now() WHERE session_id = $1 AND revoked_at IS NULL', [
    sessionId,
  ]);
}

function hashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
