import { pipeline } from 'node:stream/promises';
import type { Response } from 'express';
import { usageSums } from '../contracts/usage.ts';
import type { Pool } from '../db/pool.ts';
import { EXPORT_COLUMNS, exportCalls } from '../db/queries/usage-export.ts';
import { usageByGroup, type UsageGrouping, type UsageScope } from '../db/queries/usage-report.ts';
import type { Logger } from '../telemetry/logger.ts';
import { csvLine } from './csv.ts';
import { renderUsageSums } from './render/usage.ts';

/** All groups are summed up again for each page. */
const GROUPS_PER_PAGE = 10_000;

/** Lines of an export, a page of the database at a time; the first piece has the header. */
export async function* usageLines(pool: Pool, scope: UsageScope, grouping: UsageGrouping): AsyncGenerator<string> {
  const isGrouped = grouping.groupBy.length > 0 || grouping.bucket !== undefined;
  let header = csvLine(isGrouped ? groupColumns(grouping) : EXPORT_COLUMNS);
  for await (const lines of isGrouped ? groupLines(pool, scope, grouping) : callLines(pool, scope)) {
    yield header + lines;
    header = '';
  }
  if (header !== '') yield header;
}

async function* callLines(pool: Pool, scope: UsageScope): AsyncGenerator<string> {
  for await (const rows of exportCalls(pool, scope)) {
    yield rows
      .map((row) => csvLine(EXPORT_COLUMNS.map((name) => (name === 'labels' ? labelsCell(row.labels) : row[name]))))
      .join('');
  }
}

function labelsCell(labels: unknown): string {
  return Array.isArray(labels) ? labels.join(';') : '';
}

function groupColumns({ groupBy, bucket }: UsageGrouping): string[] {
  return [...(bucket === undefined ? [] : ['bucket_start']), ...groupBy, ...Object.keys(usageSums.shape)];
}

async function* groupLines(pool: Pool, scope: UsageScope, grouping: UsageGrouping): AsyncGenerator<string> {
  const { groupBy, bucket } = grouping;
  let cursor: string | undefined;
  do {
    const page = await usageByGroup(pool, scope, grouping, { limit: GROUPS_PER_PAGE, cursor });
    yield page.data
      .map((item) => {
        const start = bucket === undefined ? [] : [item.bucketStart];
        return csvLine([...start, ...groupBy.map((name) => item.group[name]), ...Object.values(renderUsageSums(item))]);
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
    await pipeline(lines, res);
  } catch (error) {
    // The reader has gone away, or the database has.
    log.warn({ err: error }, 'an export ended in the middle');
  }
}
