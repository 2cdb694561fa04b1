import { createHash } from 'node:crypto';
import { LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';
import type { Queryable } from './pool.ts';
import { discardFile, insertFile, insertPiece, readPiece } from './queries/files.ts';
import type { FileDraft } from './queries/files.ts';

/** Content that is stored and not yet visible: `finishFile` shows it. */
export interface StoredContent {
  id: string;
  sizeBytes: number;
  sha256: string;
}

/**
 * Stores a stream piece by piece; no more than one piece is in memory. What fails or is too large (`file_too_large`) is
 * taken back; what a crash leaves is pruned.
 */
export async function storeContent(
  db: Queryable,
  draft: FileDraft,
  content: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<StoredContent> {
  const id = await insertFile(db, draft);
  try {
    const hash = createHash('sha256');
    let sizeBytes = 0;
    let index = 0;
    for await (const piece of inPieces(content)) {
      sizeBytes += piece.length;
      if (sizeBytes > maxBytes) {
        throw new LonghaulError('file_too_large', `a file may have ${maxBytes} bytes here`, { field: 'file' });
      }
      hash.update(piece);
      await insertPiece(db, id, index, piece);
      index += 1;
    }
    return { id, sizeBytes, sha256: hash.digest('hex') };
  } catch (error) {
    // What this attempt cannot take back either is pruned as unfinished.
    await discardFile(db, id).catch(() => undefined);
    throw error;
  }
}

async function* inPieces(content: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  let piece = Buffer.alloc(LIMITS.filePieceBytes);
  let filled = 0;
  for await (const chunk of content) {
    for (let from = 0; from < chunk.length;) {
      const taken = chunk.subarray(from, from + piece.length - filled);
      piece.set(taken, filled);
      filled += taken.length;
      from += taken.length;
      if (filled < piece.length) continue;
      yield piece;
      piece = Buffer.alloc(LIMITS.filePieceBytes);
      filled = 0;
    }
  }
  if (filled > 0) yield piece.subarray(0, filled);
}

/** The bytes from `start` to before `end`. Throws `not_found` when the file is deleted under the reader. */
export async function* readContent(
  db: Queryable,
  fileId: string,
  start: number,
  end: number,
): AsyncIterable<Uint8Array> {
  for (let at = start; at < end;) {
    const index = Math.floor(at / LIMITS.filePieceBytes);
    const piece = await readPiece(db, fileId, index);
    const from = at - index * LIMITS.filePieceBytes;
    const bytes = piece?.subarray(from, Math.min(piece.length, from + end - at));
    if (bytes === undefined || bytes.length === 0) {
      throw new LonghaulError('not_found', `file ${fileId} is gone`);
    }
    yield bytes;
    at += bytes.length;
  }
}
