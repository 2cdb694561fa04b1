import { z } from 'zod';
import { time } from './fields.ts';
import { LIMITS } from './limits.ts';
import { idParam, pageOf, pageParams } from './paging.ts';

export const filePath = z.object({ file_id: z.string() });
export const fileLinkPath = z.object({ token: z.string() });

export const fileMetadata = z
  .object({
    id: z.string(),
    type: z.literal('file'),
    filename: z.string(),
    mime_type: z.string(),
    size_bytes: z.number().int(),
    created_at: time,
    downloadable: z.boolean(),
    expires_at: time.nullable(),
    scope: z.object({ type: z.literal('session'), id: z.string() }).nullable(),
    path: z
      .string()
      .nullable()
      .meta({ description: 'Longhaul’s own: where it lay below /mnt/session/outputs, for files a session made' }),
    sha256: z.string().meta({ description: 'Longhaul’s own: digest of the content, hex' }),
  })
  .meta({ id: 'File' });
export type FileMetadata = z.infer<typeof fileMetadata>;

const minimumSeconds = LIMITS.fileTtlMinMs / 1_000;
const maximumSeconds = LIMITS.fileTtlMaxMs / 1_000;
/** The fields beside the file in an upload form: text, as forms have it. */
export const fileUploadFields = z.strictObject({
  expires_in_seconds: z
    .string()
    .regex(/^\d{1,9}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().int().min(minimumSeconds).max(maximumSeconds))
    .optional(),
});

export const fileListQuery = z.strictObject({
  ...pageParams,
  'ids[]': z.array(idParam).max(100).optional().meta({ description: 'Only these; not together with page or limit' }),
  scope_id: idParam.optional().meta({ description: 'Only files of this session' }),
});
export const filePage = pageOf(fileMetadata);
export const fileDeleted = z.object({ id: z.string(), type: z.literal('file_deleted') });

export const fileLinkCreate = z.strictObject({
  ttl_seconds: z
    .number()
    .int()
    .min(60)
    .max(LIMITS.fileLinkTtlMaxMs / 1_000)
    .optional()
    .meta({ description: `Default ${LIMITS.fileLinkTtlMs / 1_000}` }),
});
export const fileLink = z
  .object({
    type: z.literal('file_link'),
    file_id: z.string(),
    url: z.string().nullable().meta({ description: 'Opens the file without a key; shown once' }),
    expires_at: time,
  })
  .meta({ id: 'FileLink' });
export const fileLinksRevoked = z.object({
  file_id: z.string(),
  type: z.literal('file_links_revoked'),
  count: z.number().int(),
});
