import { createHash } from 'node:crypto';
import { pipeline } from 'node:stream/promises';
import type { BusboyFileStream, BusboyInstance } from '@fastify/busboy';
import { Busboy } from '@fastify/busboy';
import type { Request } from 'express';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { skillFields } from '../../contracts/skills.ts';
import { parseWith } from '../validation.ts';
import type { UploadedFile } from './read-content.ts';

/** A form that was read to its end. */
export interface SkillForm {
  files: UploadedFile[];
  displayName: string | undefined;
  /** Same digest, same request: for Idempotency-Key. */
  digest: string;
}

const FIELD = /^files(?:\[\d{0,4}\])?$/;

/** Reads a `multipart/form-data` body with parts `files[]`, each named by its path. All of it fits into memory. */
export async function readSkillForm(req: Request): Promise<SkillForm> {
  const form = formOf(req);
  const fields: Record<string, string> = {};
  const files: { path: string; chunks: Buffer[] }[] = [];
  let sizeBytes = 0;
  let refusal: LonghaulError | undefined;
  const refuse = (message: string, field: string): void => {
    refusal ??= new LonghaulError('invalid_request', message, { field: field.slice(0, 120) });
  };
  form.on('field', (name, value, isNameCut, isValueCut) => {
    if (isNameCut || isValueCut) refuse('is too long', name);
    else if (Object.hasOwn(fields, name)) refuse('is given twice', name);
    else fields[name] = value;
  });
  form.on('file', (field, stream: BusboyFileStream, filename) => {
    stream.on('error', () => undefined);
    if (!FIELD.test(field)) refuse('unknown field', field);
    const file = { path: filename ?? '', chunks: [] as Buffer[] };
    files.push(file);
    stream.on('data', (chunk: Buffer) => {
      sizeBytes += chunk.length;
      if (sizeBytes <= LIMITS.skillBytes) file.chunks.push(chunk);
      else
        refusal ??= new LonghaulError('file_too_large', `a skill may have ${LIMITS.skillBytes} bytes`, {
          field: 'files',
        });
    });
  });
  for (const event of ['partsLimit', 'filesLimit', 'fieldsLimit'] as const) {
    form.on(event, () => refuse(`at most ${LIMITS.skillFiles} files`, 'files'));
  }
  try {
    await pipeline(req, form);
  } catch (error) {
    throw new LonghaulError('invalid_request', 'the form cannot be read', { field: 'files', cause: error });
  }
  if (refusal !== undefined) throw refusal;
  const given = parseWith(skillFields, fields);
  const read = files.map(({ path, chunks }) => ({ path, content: Buffer.concat(chunks) }));
  return { files: read, displayName: given.display_name, digest: digestOf(read, given.display_name) };
}

function formOf(req: Request): BusboyInstance {
  const type = req.headers['content-type'] ?? '';
  if (!/^multipart\/form-data\s*;.*boundary=/i.test(type)) {
    throw new LonghaulError('unsupported_media_type', 'the body must be multipart/form-data', {});
  }
  const { skillFiles } = LIMITS;
  try {
    return new Busboy({
      headers: { ...req.headers, 'content-type': type },
      preservePath: true,
      limits: {
        fieldNameSize: 64,
        fieldSize: 1_024,
        fields: 4,
        files: skillFiles,
        parts: skillFiles + 4,
        headerPairs: 20,
      },
      isPartAFile: (field) => field !== undefined && FIELD.test(field),
    });
  } catch (error) {
    throw new LonghaulError('invalid_request', 'the form cannot be read', { field: 'content-type', cause: error });
  }
}

function digestOf(files: readonly UploadedFile[], displayName: string | undefined): string {
  const hash = createHash('sha256').update(JSON.stringify(displayName ?? null));
  for (const { path, content } of files) {
    hash.update(JSON.stringify([path, content.length])).update(content);
  }
  return hash.digest('hex');
}
