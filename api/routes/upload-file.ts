import { z } from 'zod';
import { fileMetadata, fileUploadFields } from '../../contracts/files.ts';
import { requireRow, withTransaction } from '../../db/pool.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { discardFile, finishFile, getFile, requireFileRoom } from '../../db/queries/files.ts';
import { actorOf } from '../actor.ts';
import { rawEndpoint } from '../endpoint.ts';
import { readUpload } from '../files/upload.ts';
import { idempotencyKey, onceUnderKey } from '../idempotency.ts';
import { renderFile } from '../render/files.ts';

export const uploadFile = rawEndpoint({
  method: 'post',
  path: '/v1/files',
  tag: 'Files',
  summary: 'Upload a file',
  description: 'A `multipart/form-data` body with one part `file`. It is stored as it arrives.',
  form: fileUploadFields.extend({ file: z.string().meta({ format: 'binary' }) }),
  contentType: 'application/json',
  json: fileMetadata,
  async handle({ req, res, services, principal: caller }) {
    const principal = requireRow(caller, 'the caller');
    const { pool } = services;
    const key = idempotencyKey(req);
    await requireFileRoom(pool, principal.teamId);
    const actor = actorOf(principal);
    const upload = await readUpload(req, pool, { teamId: principal.teamId, createdBy: actor });
    const { id, sizeBytes, sha256 } = upload.content;
    let isKept = false;
    try {
      const { response, replayed } = await withTransaction(pool, (tx) =>
        onceUnderKey(tx, {
          principalId: principal.id,
          key,
          route: `post ${req.path}`,
          bodyDigest: () => upload.digest,
          work: async () => {
            await finishFile(tx, id, { sizeBytes, sha256, expiresInMs: upload.expiresInMs });
            const details = { sizeBytes, sha256 };
            await insertAudit(tx, { teamId: principal.teamId, actor, action: 'file.upload', resource: id, details });
            return renderFile(await getFile(tx, principal.teamId, id));
          },
          storable: (made) => made,
        }),
      );
      isKept = !replayed;
      if (replayed) res.setHeader('idempotent-replayed', 'true');
      res.json(response);
    } finally {
      if (!isKept) await discardFile(pool, id);
    }
  },
});
