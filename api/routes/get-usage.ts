import type { z } from 'zod';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { usageQuery, usageReport } from '../../contracts/usage.ts';
import { requireRow } from '../../db/pool.ts';
import { usageByGroup, usageTotals } from '../../db/queries/usage-report.ts';
import { rawEndpoint } from '../endpoint.ts';
import { renderUsageSums } from '../render/usage.ts';
import { sendCsv, usageLines } from '../usage-csv.ts';
import { usageScope } from '../usage-scope.ts';

export const getUsage = rawEndpoint({
  path: '/v1/usage',
  tag: 'Usage',
  summary: 'What model calls used and cost, by any dimension and over time',
  description: 'Your team’s calls only. With `format=csv`, or `Accept: text/csv`, all of it as CSV.',
  query: usageQuery,
  contentType: 'text/csv',
  json: usageReport,
  async handle({ req, res, services, principal, query }) {
    const { teamId } = requireRow(principal, 'the caller');
    const scope = usageScope(teamId, query);
    const grouping = { groupBy: query['group_by[]'] ?? [], bucket: query.bucket, sort: query.sort ?? 'group' } as const;
    const format = query.format ?? (req.accepts(['json', 'text/csv']) === 'text/csv' ? 'csv' : 'json');
    if (format === 'csv') {
      if (query.page !== undefined || query.limit !== undefined) {
        throw new LonghaulError('invalid_request', 'an export is not paged', { field: 'page' });
      }
      const log = services.logger.child({ requestId: res.getHeader('request-id') });
      await sendCsv(res, 'usage', usageLines(services.pool, scope, grouping), log);
      return;
    }
    const page = { limit: query.limit ?? LIMITS.pageSizeDefault, cursor: query.page };
    const groups = await usageByGroup(services.pool, scope, grouping, page);
    const report: z.infer<typeof usageReport> = {
      type: 'usage_report',
      from: scope.from.toISOString(),
      to: scope.to.toISOString(),
      data: groups.data.map((item) => ({
        bucket_start: item.bucketStart,
        group: item.group,
        ...renderUsageSums(item),
      })),
      totals: query.page === undefined ? renderUsageSums(await usageTotals(services.pool, scope)) : null,
      next_page: groups.nextPage,
    };
    res.json(report);
  },
});
