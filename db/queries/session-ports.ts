import { createHash, randomBytes } from 'node:crypto';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface SessionPortRow {
  id: string;
  sessionId: string;
  port: number;
  createdBy: string;
  createdAt: Date;
  expiresAt: Date;
}

const COLUMNS = 'id, session_id, port, created_by, created_at, expires_at';

/** How the token of a link is kept. */
export function portTokenHash(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** Opens a port. The caller holds the session's row, so that the count cannot be overtaken. */
export async function insertSessionPort(
  tx: Queryable,
  link: { sessionId: string; teamId: string; port: number; createdBy: string; ttlSeconds: number },
): Promise<{ row: SessionPortRow; token: string }> {
  await tx.query(
    `DELETE FROM session_ports WHERE id IN (
       SELECT id FROM session_ports WHERE expires_at < now() - interval '7 days' ORDER BY expires_at LIMIT 100)`,
  );
  const live = await listSessionPorts(tx, link.sessionId);
  if (live.length >= LIMITS.portsPerSession) {
    throw new LonghaulError('invalid_request', `the session has ${live.length} open ports already`, { field: 'port' });
  }
  const token = randomBytes(24).toString('base64url');
  const result = await tx.query(
    `INSERT INTO session_ports (id, session_id, team_id, port, token_hash, created_by, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7)) RETURNING ${COLUMNS}`,
    [
      newId('sessionPort'),
      link.sessionId,
      link.teamId,
      link.port,
      portTokenHash(token),
      link.createdBy,
      link.ttlSeconds,
    ],
  );
  return { row: toCamel<SessionPortRow>(result.rows[0] as object), token };
}

/** Those that are open, newest first. */
export async function listSessionPorts(db: Queryable, sessionId: string): Promise<SessionPortRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM session_ports
     WHERE session_id = $1 AND revoked_at IS NULL AND expires_at > now() ORDER BY created_at DESC, id DESC`,
    [sessionId],
  );
  return result.rows.map((row) => toCamel<SessionPortRow>(row as object));
}

/** False when it was closed before. */
export async function revokeSessionPort(tx: Queryable, sessionId: string, id: string): Promise<boolean> {
  const result = await tx.query(
    'UPDATE session_ports SET revoked_at = now() WHERE id = $2 AND session_id = $1 AND revoked_at IS NULL',
    [sessionId, id],
  );
  return result.rowCount === 1;
}

/** What the process that serves a port has to know of it. */
export interface OpenPort {
  port: number;
  tokenHash: Buffer;
  expiresAt: Date;
  /** Revoked, expired, or the session ended. */
  isOver: boolean;
  /** Where the sandbox is; null while it does not run or cannot be reached. */
  point: { type: 'namespace'; pid: number; startTime: string } | null;
}

/** By the random part of its id, which is the first label of its host name. */
export async function findOpenPort(db: Queryable, id: string): Promise<OpenPort | undefined> {
  const result = await db.query(
    `SELECT p.port, p.token_hash, p.expires_at,
            p.revoked_at IS NOT NULL OR p.expires_at <= now() OR s.status = 'terminated' OR s.deleted_at IS NOT NULL
              AS is_over,
            (SELECT b.egress_point FROM sandboxes b
             WHERE b.session_id = p.session_id AND b.state = 'running' ORDER BY b.generation DESC LIMIT 1) AS point
     FROM session_ports p JOIN sessions s ON s.id = p.session_id WHERE p.id = $1`,
    [id],
  );
  return result.rows[0] === undefined ? undefined : toCamel<OpenPort>(result.rows[0] as object);
}
