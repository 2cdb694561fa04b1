import { fileDeleted, filePath } from '../../contracts/files.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { deleteFile as remove, getFile } from '../../db/queries/files.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';

export const deleteFile = endpoint({
  method: 'delete',
  path: '/v1/files/{file_id}',
  tag: 'Files',
  summary: 'Delete a file and its content',
  params: filePath,
  response: fileDeleted,
  async handle({ db, principal }, { params }) {
    const file = await getFile(db, principal.teamId, params.file_id);
    await remove(db, principal.teamId, file.id);
    const actor = actorOf(principal);
    await insertAudit(db, { teamId: file.teamId, actor, action: 'file.delete', resource: file.id });
    return { id: file.id, type: 'file_deleted' as const };
  },
});
