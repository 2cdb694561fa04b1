import { LonghaulError } from '../../contracts/error-codes.ts';
import { fileListQuery, filePage } from '../../contracts/files.ts';
import { listFilesByIds, listFiles as readFiles } from '../../db/queries/files.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderFile } from '../render/files.ts';

export const listFiles = endpoint({
  method: 'get',
  path: '/v1/files',
  tag: 'Files',
  summary: 'List files, newest first',
  query: fileListQuery,
  response: filePage,
  async handle({ db, principal }, { query }) {
    const ids = query['ids[]'];
    if (ids !== undefined) {
      if (query.page !== undefined || query.limit !== undefined) {
        throw new LonghaulError('invalid_request', 'not together with page or limit', { field: 'ids[]' });
      }
      const rows = await listFilesByIds(db, principal.teamId, ids);
      return { data: rows.map(renderFile), next_page: null };
    }
    const where = { teamId: principal.teamId, sessionId: query.scope_id };
    return renderPage(await readFiles(db, where, pageRequest(query)), renderFile);
  },
});
