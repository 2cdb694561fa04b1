import { filePath } from '../../contracts/files.ts';
import { requireRow } from '../../db/pool.ts';
import { getFile } from '../../db/queries/files.ts';
import { rawEndpoint } from '../endpoint.ts';
import { sendFile } from '../files/download.ts';

export const downloadFile = rawEndpoint({
  path: '/v1/files/{file_id}/content',
  tag: 'Files',
  summary: 'Download a file',
  description: 'Takes one `Range`. Always an attachment.',
  params: filePath,
  contentType: 'application/octet-stream',
  async handle({ req, res, services, principal, params }) {
    const { teamId } = requireRow(principal, 'the caller');
    await sendFile(req, res, services.pool, await getFile(services.pool, teamId, params.file_id));
  },
});
