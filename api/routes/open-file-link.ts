import { fileLinkPath } from '../../contracts/files.ts';
import { openFileLink as readFileLink } from '../../db/queries/file-links.ts';
import { rawEndpoint } from '../endpoint.ts';
import { sendFile } from '../files/download.ts';

export const openFileLink = rawEndpoint({
  path: '/v1/file_links/{token}',
  tag: 'Files',
  summary: 'Download the file a link opens; needs no key',
  public: true,
  params: fileLinkPath,
  contentType: 'application/octet-stream',
  async handle({ req, res, services, params }) {
    await sendFile(req, res, services.pool, await readFileLink(services.pool, params.token));
  },
});
