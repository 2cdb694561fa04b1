import { createHash, randomBytes } from 'node:crypto';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { FileRow } from './files.ts';

const hashOf = (token: string): Buffer => createHash('sha256').update(token).digest();

/** A link that opens the file to its holder. Only the hash of its token is kept. */
export async function insertFileLink(
  tx: Queryable,
  link: { fileId: string; createdBy: string; ttlMs: number },
): Promise<{ token: string; expiresAt: Date }> {
  const token = randomBytes(32).toString('base64url');
  const result = await tx.query<{ expires_at: Date }>(
    `INSERT INTO file_links (token_hash, file_id, created_by, expires_at)
     VALUES ($1, $2, $3, now() + make_interval(secs => $4 / 1000.0)) RETURNING expires_at`,
    [hashOf(token), link.fileId, link.createdBy, link.ttlMs],
  );
  return { token, expiresAt: result.rows[0]?.expires_at ?? new Date() };
}

/** The file a link opens. Throws `not_found` when link or file are gone or expired: nobody learns which. */
export async function openFileLink(db: Queryable, token: string): Promise<FileRow> {
  const result = await db.query(
    `SELECT f.id, f.team_id, f.source, f.filename, f.mime_type, f.size_bytes, f.sha256, f.session_id, f.path,
            f.created_at, f.expires_at
     FROM file_links l JOIN files f ON f.id = l.file_id
     WHERE l.token_hash = $1 AND l.expires_at > now() AND f.state = 'ready'
       AND (f.expires_at IS NULL OR f.expires_at > now())`,
    [hashOf(token)],
  );
  const row = result.rows[0] as object | undefined;
  if (row === undefined) throw new LonghaulError('not_found', 'this link opens nothing, or no longer');
  return toCamel<FileRow>(row);
}

export async function deleteFileLinks(tx: Queryable, fileId: string): Promise<number> {
  const deleted = await tx.query('DELETE FROM file_links WHERE file_id = $1', [fileId]);
  return deleted.rowCount ?? 0;
}

export async function deleteOldFileLinks(db: Queryable, batch: number): Promise<number> {
  const deleted = await db.query(
    `DELETE FROM file_links WHERE token_hash IN (
       SELECT token_hash FROM file_links WHERE expires_at < now() ORDER BY expires_at LIMIT $1)`,
    [batch],
  );
  return deleted.rowCount ?? 0;
}
