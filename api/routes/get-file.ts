import { fileMetadata, filePath } from '../../contracts/files.ts';
import { getFile as readFile } from '../../db/queries/files.ts';
import { endpoint } from '../endpoint.ts';
import { renderFile } from '../render/files.ts';

export const getFile = endpoint({
  method: 'get',
  path: '/v1/files/{file_id}',
  tag: 'Files',
  summary: 'Get what is known of a file',
  params: filePath,
  response: fileMetadata,
  async handle({ db, principal }, { params }) {
    return renderFile(await readFile(db, principal.teamId, params.file_id));
  },
});
