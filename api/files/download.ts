import { once } from 'node:events';
import type { Request, Response } from 'express';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { readContent } from '../../db/file-content.ts';
import type { Pool } from '../../db/pool.ts';
import type { FileRow } from '../../db/queries/files.ts';

/**
 * Sends a file, or the one range that is asked for. Always as an attachment a browser will not run: what a session made is
 * not ours to trust.
 */
export async function sendFile(req: Request, res: Response, pool: Pool, file: FileRow): Promise<void> {
  const etag = `"${file.sha256}"`;
  res.setHeader('etag', etag);
  res.setHeader('accept-ranges', 'bytes');
  res.setHeader('cache-control', 'private, no-store');
  res.setHeader('x-content-type-options', 'nosniff');
  res.setHeader('content-security-policy', "default-src 'none'; sandbox");
  res.attachment(file.filename);
  res.setHeader('content-type', file.mimeType);
  if (req.headers['if-none-match'] === etag) {
    res.status(304).end();
    return;
  }
  const range = rangeOf(req, file.sizeBytes, etag);
  const { start, end } = range ?? { start: 0, end: file.sizeBytes };
  if (range !== undefined) {
    res.status(206).setHeader('content-range', `bytes ${start}-${end - 1}/${file.sizeBytes}`);
  }
  res.setHeader('content-length', end - start);
  if (req.method === 'HEAD') {
    res.end();
    return;
  }
  const gone = once(res, 'close');
  for await (const piece of readContent(pool, file.id, start, end)) {
    if (!res.write(piece)) await Promise.race([once(res, 'drain'), gone]);
    if (res.destroyed) return;
  }
  res.end();
}

/** One range as RFC 9110 has it; undefined: all of it. */
function rangeOf(req: Request, sizeBytes: number, etag: string): { start: number; end: number } | undefined {
  const header = req.headers['range'];
  const condition = req.headers['if-range'];
  if (header === undefined || (condition !== undefined && condition !== etag)) return undefined;
  const parts = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim());
  const [, first = '', last = ''] = parts ?? [];
  // Several ranges, or none that can be read: the whole file is a right answer.
  if (parts === null || (first === '' && last === '')) return undefined;
  const start = first === '' ? Math.max(0, sizeBytes - Number(last)) : Number(first);
  const end = first === '' || last === '' ? sizeBytes : Math.min(sizeBytes, Number(last) + 1);
  if (start >= end) {
    throw new LonghaulError('range_not_satisfiable', `the file has ${sizeBytes} bytes`, { field: 'Range' });
  }
  return { start, end };
}
