import { createHash } from 'node:crypto';
import { pipeline } from 'node:stream/promises';
import type { BusboyFileStream, BusboyInstance } from '@fastify/busboy';
import { Busboy } from '@fastify/busboy';
import type { Request } from 'express';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { fileUploadFields } from '../../contracts/files.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { StoredContent } from '../../db/file-content.ts';
import { storeContent } from '../../db/file-content.ts';
import type { Pool } from '../../db/pool.ts';
import { discardFile } from '../../db/queries/files.ts';
import { parseWith } from '../validation.ts';

/** A form that was read to its end: its file is stored and not yet visible. */
export interface Upload {
  content: StoredContent;
  expiresInMs: number | null;
  /** Same digest, same request: for Idempotency-Key. */
  digest: string;
}

const FIELD_BYTES = 64;

/** Reads a `multipart/form-data` body with one part `file`, storing it as it comes. */
export async function readUpload(
  req: Request,
  pool: Pool,
  owner: { teamId: string; createdBy: string },
): Promise<Upload> {
  const form = formOf(req);
  const fields: Record<string, string> = {};
  let storing: Promise<{ content: StoredContent; name: string; type: string }> | undefined;
  let part: BusboyFileStream | undefined;
  let refusal: LonghaulError | undefined;
  const refuse = (message: string, field: string): void => {
    refusal ??= new LonghaulError('invalid_request', message, { field: field.slice(0, 120) });
  };
  form.on('field', (name, value, isNameCut, isValueCut) => {
    if (isNameCut || isValueCut) refuse('is too long', name);
    if (Object.hasOwn(fields, name)) refuse('is given twice', name);
    else fields[name] = value;
  });
  form.on('file', (field, stream, filename, _encoding, mimeType) => {
    if (field !== 'file' || storing !== undefined) {
      refuse(field === 'file' ? 'only one file at a time' : 'unknown field', field);
      stream.resume();
      return;
    }
    // The parser tells a body that breaks off on the part as well, also when nobody reads it any more.
    stream.on('error', () => undefined);
    part = stream;
    const name = cleanName(filename);
    const type = cleanType(mimeType);
    const draft = { ...owner, source: 'upload' as const, filename: name, mimeType: type };
    storing = storeContent(pool, draft, stream, LIMITS.fileBytes).then((content) => ({ content, name, type }));
    // Told below; until then nobody may find it unhandled. The rest of the part must flow on, or the body never ends.
    storing.catch((error: unknown) => {
      stream.resume();
      form.destroy(error instanceof Error ? error : new Error(String(error)));
    });
  });
  for (const event of ['partsLimit', 'filesLimit', 'fieldsLimit'] as const) {
    form.on(event, () => refuse('has too many parts', 'file'));
  }
  const [read] = await Promise.allSettled([pipeline(req, form)]);
  // The parser leaves the part of a body that broke off open for good.
  if (read.status === 'rejected')
    part?.destroy(new LonghaulError('invalid_request', 'the form breaks off', { field: 'file' }));
  const stored = await Promise.allSettled([storing]).then(([result]) => result);
  if (stored.status === 'rejected') throw stored.reason;
  try {
    if (read.status === 'rejected')
      throw new LonghaulError('invalid_request', 'the form cannot be read', { field: 'file', cause: read.reason });
    if (refusal !== undefined) throw refusal;
    const given = parseWith(fileUploadFields, fields);
    if (stored.value === undefined) throw new LonghaulError('invalid_request', 'is missing', { field: 'file' });
    const { content, name, type } = stored.value;
    const seconds = given.expires_in_seconds ?? null;
    const digest = createHash('sha256')
      .update(JSON.stringify([name, type, seconds, content.sha256]))
      .digest('hex');
    return { content, expiresInMs: seconds === null ? null : seconds * 1_000, digest };
  } catch (error) {
    if (stored.value !== undefined) await discardFile(pool, stored.value.content.id);
    throw error;
  }
}

function formOf(req: Request): BusboyInstance {
  const type = req.headers['content-type'] ?? '';
  if (!/^multipart\/form-data\s*;.*boundary=/i.test(type)) {
    throw new LonghaulError('unsupported_media_type', 'the body must be multipart/form-data', {});
  }
  try {
    return new Busboy({
      headers: { ...req.headers, 'content-type': type },
      limits: { fieldNameSize: FIELD_BYTES, fieldSize: FIELD_BYTES, fields: 4, files: 2, parts: 6, headerPairs: 20 },
      isPartAFile: (field) => field === 'file',
    });
  } catch (error) {
    throw new LonghaulError('invalid_request', 'the form cannot be read', { field: 'content-type', cause: error });
  }
}

/** The last part of the path, without what a file system or a terminal would take for more than a name. */
function cleanName(given: string | undefined): string {
  const last = (given ?? '').split(/[/\\]/).at(-1) ?? '';
  const plain = last.replaceAll(/[\p{Control}\p{Format}\u2028\u2029]/gu, '').trim();
  const cut = plain.slice(0, LIMITS.filenameChars).replaceAll(/\p{Surrogate}/gu, '');
  return cut === '' || cut === '.' || cut === '..' ? 'unnamed' : cut;
}

function cleanType(given: string | undefined): string {
  const type = (given ?? '').toLowerCase();
  return /^[a-z0-9!#$&^_.+-]{1,64}\/[a-z0-9!#$&^_.+-]{1,64}$/.test(type) ? type : 'application/octet-stream';
}
