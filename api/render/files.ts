import type { FileMetadata } from '../../contracts/files.ts';
import type { FileRow } from '../../db/queries/files.ts';
import { isoOrNull } from './times.ts';

export function renderFile(row: FileRow): FileMetadata {
  return {
    id: row.id,
    type: 'file',
    filename: row.filename,
    mime_type: row.mimeType,
    size_bytes: row.sizeBytes,
    created_at: row.createdAt.toISOString(),
    downloadable: true,
    expires_at: isoOrNull(row.expiresAt),
    scope: row.sessionId === null ? null : { type: 'session', id: row.sessionId },
    path: row.path,
    sha256: row.sha256,
  };
}
