import { once } from 'node:events';
import type { Response } from 'express';
import { LIMITS } from '../contracts/limits.ts';
import { usageSums } from '../contracts/usage.ts';
import type { Pool } from '../db/pool.ts';
import { EXPORT_COLUMNS, exportCalls } from '../db/queries/usage-export.ts';
import { usageByGroup, type UsageGrouping, type UsageScope } from '../db/queries/usage-report.ts';
import type { Logger } from '../telemetry/logger.ts';
import { csvLine } from './csv.ts';
import { renderUsageSums } from './render/usage.ts';

/** Lines of an export, a page of the database at a time. */
export function usageLines(pool: Pool, scope: UsageScope, grouping: UsageGrouping): AsyncGenerator<string> {
  return grouping.groupBy.length === 0 && grouping.bucket === undefined
    ? callLines(pool, scope)
    : groupLines(pool, scope, grouping);
}

async function* callLines(pool: Pool, scope: UsageScope): AsyncGenerator<string> {
  yield csvLine(EXPORT_COLUMNS);
  for await (const rows of exportCalls(pool, scope)) {
    yield rows
      .map((row) => csvLine(EXPORT_COLUMNS.map((name) => (name === 'labels' ? labelsCell(row.labels) : row[name]))))
      .join('');
  }
}

function labelsCell(labels: unknown): string {
  return Array.isArray(labels) ? labels.join(';') : '';
}

async function* groupLines(pool: Pool, scope: UsageScope, grouping: UsageGrouping): AsyncGenerator<string> {
  const limit = LIMITS.pageSizeMax * 10;
  const hasBuckets = grouping.bucket !== undefined;
  yield csvLine([...(hasBuckets ? ['bucket_start'] : []), ...grouping.groupBy, ...Object.keys(usageSums.shape)]);
  let cursor: string | undefined;
  do {
    const page = await usageByGroup(pool, scope, grouping, { limit, cursor });
    yield page.data
      .map((item) => {
        const group = grouping.groupBy.map((name) => item.group[name]);
        return csvLine([...(hasBuckets ? [item.bucketStart] : []), ...group, ...Object.values(renderUsageSums(item))]);
      })
      .join('');
    cursor = page.nextPage ?? undefined;
  } while (cursor !== undefined);
}

/** Writes lines as fast as the reader takes them. What fails in the middle breaks the connection: no end looks whole. */
export async function sendCsv(res: Response, name: string, lines: AsyncGenerator<string>, log: Logger): Promise<void> {
  // Nothing is promised before the first page was read.
  const first = await lines.next();
  res.type('text/csv; charset=utf-8').setHeader('content-disposition', `attachment; filename="${name}.csv"`);
  try {
    if (first.done !== true) res.write(first.value);
    for await (const line of lines) {
      if (res.destroyed) return;
      if (!res.write(line)) await Promise.race([once(res, 'drain'), once(res, 'close')]);
    }
    res.end();
  } catch (error) {
    log.warn({ err: error }, 'an export ended in the middle');
    res.destroy();
  }
}
