import { fileLinksRevoked, filePath } from '../../contracts/files.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { deleteFileLinks as removeLinks } from '../../db/queries/file-links.ts';
import { getFile } from '../../db/queries/files.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';

export const deleteFileLinks = endpoint({
  method: 'delete',
  path: '/v1/files/{file_id}/links',
  tag: 'Files',
  summary: 'Revoke all links to a file',
  params: filePath,
  response: fileLinksRevoked,
  async handle({ db, principal }, { params }) {
    const file = await getFile(db, principal.teamId, params.file_id);
    const count = await removeLinks(db, file.id);
    const details = { count };
    const actor = actorOf(principal);
    await insertAudit(db, { teamId: file.teamId, actor, action: 'file.links_revoke', resource: file.id, details });
    return { file_id: file.id, type: 'file_links_revoked' as const, count };
  },
});
