import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface FileRow {
  id: string;
  teamId: string;
  source: 'upload' | 'artifact';
  filename: string;
  mimeType: string;
  sizeBytes: number;
  sha256: string;
  sessionId: string | null;
  /** Of an artifact: its path below /mnt/session/outputs. */
  path: string | null;
  createdAt: Date;
  expiresAt: Date | null;
}

export interface FileDraft {
  teamId: string;
  source: 'upload' | 'artifact';
  filename: string;
  mimeType: string;
  createdBy: string;
  sessionId?: string;
  path?: string;
  versionMark?: string;
}

const COLUMNS =
  'id, team_id, source, filename, mime_type, size_bytes, sha256, session_id, path, created_at, expires_at';
const READABLE = `state = 'ready' AND (expires_at IS NULL OR expires_at > now())`;

/** A row for content that is still to come; nobody sees it before `finishFile`. */
export async function insertFile(db: Queryable, draft: FileDraft): Promise<string> {
  const id = newId('file');
  await db.query(
    `INSERT INTO files (id, team_id, state, source, filename, mime_type, session_id, path, version_mark, created_by)
     VALUES ($1, $2, 'writing', $3, $4, $5, $6, $7, $8, $9)`,
    [
      id,
      draft.teamId,
      draft.source,
      draft.filename,
      draft.mimeType,
      draft.sessionId ?? null,
      draft.path ?? null,
      draft.versionMark ?? null,
      draft.createdBy,
    ],
  );
  return id;
}

/** Pieces are `LIMITS.filePieceBytes` long, the last one shorter. */
export async function insertPiece(db: Queryable, fileId: string, index: number, content: Uint8Array): Promise<void> {
  await db.query('INSERT INTO file_pieces (file_id, index, content) VALUES ($1, $2, $3)', [fileId, index, content]);
}

/** Makes the file visible. False when it was taken away meanwhile, by the pruning of unfinished ones. */
export async function finishFile(
  tx: Queryable,
  id: string,
  content: { sizeBytes: number; sha256: string; expiresInMs: number | null },
): Promise<boolean> {
  const done = await tx.query(
    `UPDATE files SET state = 'ready', size_bytes = $2, sha256 = $3,
       expires_at = created_at + make_interval(secs => $4 / 1000.0)
     WHERE id = $1 AND state = 'writing'`,
    [id, content.sizeBytes, content.sha256, content.expiresInMs],
  );
  return done.rowCount === 1;
}

/** Throws `not_found`, also for a file that expired. */
export async function getFile(db: Queryable, teamId: string, id: string): Promise<FileRow> {
  const result = await db.query(`SELECT ${COLUMNS} FROM files WHERE id = $1 AND team_id = $2 AND ${READABLE}`, [
    id,
    teamId,
  ]);
  return toCamel<FileRow>(requireRow(result.rows[0] as object | undefined, `file ${id}`));
}

export async function listFiles(
  db: Queryable,
  where: { teamId: string; sessionId?: string | undefined },
  page: PageRequest,
): Promise<Page<FileRow>> {
  const filter = new Filter().add('team_id = ?', where.teamId).add('session_id = ?', where.sessionId);
  return selectPage<FileRow>(db, `SELECT ${COLUMNS} FROM files WHERE ${READABLE}`, filter, page);
}

export async function listFilesByIds(db: Queryable, teamId: string, ids: string[]): Promise<FileRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM files WHERE team_id = $1 AND id = ANY($2) AND ${READABLE} ORDER BY created_at DESC, id DESC`,
    [teamId, ids],
  );
  return result.rows.map((row) => toCamel<FileRow>(row as object));
}

/** The next piece, or undefined after the last one. */
export async function readPiece(db: Queryable, fileId: string, index: number): Promise<Uint8Array | undefined> {
  const result = await db.query<{ content: Buffer }>(
    'SELECT content FROM file_pieces WHERE file_id = $1 AND index = $2',
    [fileId, index],
  );
  return result.rows[0]?.content;
}

/** Takes back a file that was not finished. */
export async function discardFile(db: Queryable, id: string): Promise<void> {
  await db.query(`DELETE FROM files WHERE id = $1 AND state = 'writing'`, [id]);
}

/** Takes a file away for good; its content goes at once. False when it was gone already. */
export async function deleteFile(tx: Queryable, teamId: string, id: string): Promise<boolean> {
  const deleted = await tx.query(
    `UPDATE files SET state = 'deleted' WHERE id = $1 AND team_id = $2 AND state = 'ready' RETURNING id`,
    [id, teamId],
  );
  await tx.query('DELETE FROM file_pieces WHERE file_id = ANY($1)', [
    deleted.rows.map((row: { id: string }) => row.id),
  ]);
  return deleted.rowCount === 1;
}

/** Throws when the team holds as much as it may. What is being written counts with what is there of it. */
export async function requireFileRoom(db: Queryable, teamId: string): Promise<void> {
  const result = await db.query<{ files: number; bytes: number }>(
    `SELECT count(*) AS files, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM files
     WHERE team_id = $1 AND state <> 'deleted'`,
    [teamId],
  );
  const { files = 0, bytes = 0 } = result.rows[0] ?? {};
  if (files < LIMITS.filesPerTeam && bytes < LIMITS.fileBytesPerTeam) return;
  throw new LonghaulError('file_quota', `the team has ${files} files of ${bytes} bytes`);
}

/** A file of a session's outputs, as it was taken last. */
export interface KnownArtifact {
  path: string;
  versionMark: string;
  sizeBytes: number;
}

/** The newest version of each output of a session. */
export async function listArtifacts(db: Queryable, sessionId: string): Promise<KnownArtifact[]> {
  const result = await db.query(
    `SELECT DISTINCT ON (path) path, version_mark, size_bytes FROM files
     WHERE session_id = $1 AND source = 'artifact' AND state = 'ready' ORDER BY path, created_at DESC, id DESC`,
    [sessionId],
  );
  return result.rows.map((row) => toCamel<KnownArtifact>(row as object));
}

/** Older versions of an output stay for a while: somebody may be reading them. */
export async function retireOlderVersions(tx: Queryable, artifact: { id: string; keptMs: number }): Promise<void> {
  await tx.query(
    `UPDATE files old SET expires_at = least(old.expires_at, now() + make_interval(secs => $2 / 1000.0))
     FROM files new WHERE new.id = $1 AND old.session_id = new.session_id AND old.path = new.path
       AND old.source = 'artifact' AND old.id <> new.id AND old.state = 'ready' AND old.created_at <= new.created_at`,
    [artifact.id, artifact.keptMs],
  );
}

/** Removes files that expired or were never finished, with their content. Returns how many. */
export async function deleteOldFiles(db: Queryable, batch: number): Promise<number> {
  const result = await db.query(
    `DELETE FROM files WHERE id IN (
       (SELECT id FROM files WHERE state <> 'deleted' AND expires_at < now() ORDER BY expires_at LIMIT $1)
       UNION
       (SELECT id FROM files WHERE state = 'writing' AND created_at < now() - make_interval(secs => $2 / 1000.0)
        ORDER BY created_at LIMIT $1))`,
    [Math.min(batch, LIMITS.filesPrunedAtOnce), LIMITS.unfinishedFileMs],
  );
  return result.rowCount ?? 0;
}
