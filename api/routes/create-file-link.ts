import { fileLink, fileLinkCreate, filePath } from '../../contracts/files.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { insertFileLink } from '../../db/queries/file-links.ts';
import { getFile } from '../../db/queries/files.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';

export const createFileLink = endpoint({
  method: 'post',
  path: '/v1/files/{file_id}/links',
  tag: 'Files',
  summary: 'Make a link that opens a file to its holder for a while',
  params: filePath,
  body: fileLinkCreate,
  response: fileLink,
  secrets: ['url'],
  async handle({ db, principal, services }, { params, body }) {
    const file = await getFile(db, principal.teamId, params.file_id);
    const ttlMs = body.ttl_seconds === undefined ? LIMITS.fileLinkTtlMs : body.ttl_seconds * 1_000;
    const actor = actorOf(principal);
    const { token, expiresAt } = await insertFileLink(db, { fileId: file.id, createdBy: actor, ttlMs });
    const details = { ttlMs };
    await insertAudit(db, { teamId: file.teamId, actor, action: 'file.link', resource: file.id, details });
    return {
      type: 'file_link' as const,
      file_id: file.id,
      url: `${services.config.publicUrl}/v1/file_links/${token}`,
      expires_at: expiresAt.toISOString(),
    };
  },
});
