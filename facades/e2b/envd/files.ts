import type { IncomingMessage, ServerResponse } from 'node:http';
import { posix } from 'node:path';
import { PassThrough, pipeline, type Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { Busboy } from '@fastify/busboy';
import { anyAbort } from '../../../contracts/abort.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { sendJson, WireError } from '../http.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type { E2bDeps, LiveSandbox } from '../sandboxes.ts';
import { requireUser, resolvePath } from './paths.ts';

const TRANSFER_MS = 60 * 60_000;
const START_BYTES = 64 * 1024;

/** `GET /files`: a file as it is, in pieces. */
export async function download(deps: E2bDeps, live: LiveSandbox, res: ServerResponse, url: URL): Promise<void> {
  requireUser(url.searchParams.get('username') ?? undefined);
  const path = resolvePath(url.searchParams.get('path') ?? '');
  const signal = anyAbort([AbortSignal.timeout(TRANSFER_MS), closedSignal(res)]);
  const stat = await deps.provider.stat(live.ref, path, signal);
  if (stat === null) throw new WireError(404, `path '${path}' does not exist`);
  if (stat.type === 'directory') throw new WireError(400, `path '${path}' is a directory`);
  const pieces = deps.provider.readStream(live.ref, path, signal)[Symbol.asyncIterator]();
  const { start, isWhole } = await beginning(pieces);
  // A small file that somebody writes meanwhile is as long as what was read of it.
  let leftBytes = isWhole ? start.length : Math.max(stat.sizeBytes, start.length);
  res.writeHead(200, {
    'content-type': 'application/octet-stream',
    'content-length': leftBytes,
    'content-disposition': `inline; filename*=utf-8''${encodeURIComponent(posix.basename(path))}`,
    'x-content-type-options': 'nosniff',
  });
  leftBytes -= start.length;
  if (start.length > 0 && !res.write(start)) await drained(res);
  while (leftBytes > 0 && !res.destroyed) {
    const { done, value } = await pieces.next();
    if (done === true) break;
    // A file that grows meanwhile ends where it was said to.
    const part = value.subarray(0, leftBytes);
    leftBytes -= part.length;
    if (!res.write(part)) await drained(res);
  }
  await pieces.return?.();
  if (leftBytes > 0) res.destroy();
  else res.end();
}

/** What is read before the answer begins. */
async function beginning(pieces: AsyncIterator<Uint8Array>): Promise<{ start: Buffer; isWhole: boolean }> {
  const found: Uint8Array[] = [];
  let sizeBytes = 0;
  while (sizeBytes <= START_BYTES) {
    const { done, value } = await pieces.next();
    if (done === true) return { start: Buffer.concat(found), isWhole: true };
    found.push(value);
    sizeBytes += value.length;
  }
  return { start: Buffer.concat(found), isWhole: false };
}

function closedSignal(res: ServerResponse): AbortSignal {
  const closed = new AbortController();
  res.once('close', () => closed.abort());
  return closed.signal;
}

function drained(res: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      res.off('drain', done).off('close', done);
      resolve();
    };
    res.on('drain', done).on('close', done);
  });
}

interface Written {
  name: string;
  type: 'file';
  path: string;
}

/** `POST /files`: one file as it is, or any number in a form. Each replaces its old content in one step. */
export async function upload(
  deps: E2bDeps,
  live: LiveSandbox,
  req: IncomingMessage,
  res: ServerResponse,
  url: URL,
): Promise<void> {
  requireUser(url.searchParams.get('username') ?? undefined);
  const given = url.searchParams.get('path') ?? '';
  const type = (req.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase();
  const body = plain(req);
  const write = async (path: string, content: AsyncIterable<Uint8Array>): Promise<Written> => {
    if (path === '') throw new WireError(400, 'path: is needed');
    return writeOne(deps, live, resolvePath(path), content);
  };
  if (type === 'application/octet-stream') return sendJson(res, 200, [await write(given, bounded(body))]);
  if (type !== 'multipart/form-data') throw new WireError(400, 'send a form or application/octet-stream');
  sendJson(res, 200, await writeForm(req, body, given, write));
}

/** The body without its transfer encoding. */
function plain(req: IncomingMessage): Readable {
  const encoding = req.headers['content-encoding'] ?? 'identity';
  if (encoding === 'identity') return req;
  if (encoding !== 'gzip') throw new WireError(400, `content encoding ${encoding.slice(0, 32)} is not taken`);
  // Whoever reads it is told of an error.
  return pipeline(req, createGunzip(), () => undefined);
}

async function* bounded(content: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  let sizeBytes = 0;
  for await (const piece of content) {
    sizeBytes += piece.length;
    if (sizeBytes > LIMITS.sandboxDiskBytes)
      throw new WireError(413, `a file may have ${LIMITS.sandboxDiskBytes} bytes`);
    yield piece;
  }
}

/** Files are written one after the other, as they come. */
async function writeForm(
  req: IncomingMessage,
  body: Readable,
  given: string,
  write: (path: string, content: AsyncIterable<Uint8Array>) => Promise<Written>,
): Promise<Written[]> {
  const form = new Busboy({
    headers: { ...req.headers, 'content-type': req.headers['content-type'] ?? '' },
    preservePath: true,
    limits: { files: LIMITS.e2bFilesPerUpload, fields: 10, fieldSize: 1_024, fileSize: LIMITS.sandboxDiskBytes },
  });
  const writes: Promise<Written>[] = [];
  const open: PassThrough[] = [];
  let before: Promise<unknown> = Promise.resolve();
  const finished = new Promise<void>((resolve, reject) => {
    form.on('file', (_field, stream, filename) => {
      const through = new PassThrough();
      open.push(through);
      stream.on('limit', () => through.destroy(new WireError(413, 'a file is too large')));
      stream.pipe(through);
      stream.on('error', (error) => through.destroy(error));
      const path = given === '' ? (filename ?? '') : given;
      const written = before.then(() => write(path, bounded(through)));
      before = written.catch((error: unknown) => {
        // What is left of the form has to be read for its end to come.
        through.destroy();
        stream.resume();
        reject(error instanceof Error ? error : new Error(String(error)));
      });
      writes.push(written);
      written.catch(() => undefined);
    });
    form.on('filesLimit', () => reject(new WireError(400, `a form may have ${LIMITS.e2bFilesPerUpload} files`)));
    form.on('finish', resolve);
    form.on('error', (error) => reject(new WireError(400, 'the form cannot be read', { cause: error })));
    body.on('error', reject);
    req.on('aborted', () => reject(new WireError(400, 'the upload broke off')));
  });
  body.pipe(form);
  try {
    await finished;
  } catch (error) {
    body.unpipe(form);
    form.destroy();
    // A write that still waits for the rest ends with the old content in place.
    for (const through of open) through.destroy(new WireError(400, 'the upload broke off'));
    await Promise.allSettled(writes);
    throw error;
  }
  const all = await Promise.all(writes);
  if (all.length === 0) throw new WireError(400, 'the form has no file');
  return all;
}

async function writeOne(
  deps: E2bDeps,
  live: LiveSandbox,
  path: string,
  content: AsyncIterable<Uint8Array>,
): Promise<Written> {
  try {
    await deps.provider.writeStream(live.ref, path, content, AbortSignal.timeout(TRANSFER_MS));
  } catch (error) {
    if (error instanceof LonghaulError && /No space left|disk/i.test(error.message)) {
      throw new WireError(507, 'the disk of the sandbox is full', { cause: error });
    }
    throw error;
  }
  return { name: posix.basename(path), type: 'file', path };
}
