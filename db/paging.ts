import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from './pool.ts';
import { toCamel } from './rows.ts';

export interface PageRequest {
  limit: number;
  /** Opaque: what a page before gave as `nextPage` or `prevPage`. */
  cursor?: string | undefined;
  /** By creation time; default newest first. */
  order?: 'asc' | 'desc' | undefined;
}

export interface Page<T> {
  data: T[];
  nextPage: string | null;
  prevPage: string | null;
}

/** Conditions collected with their parameters, so that no value ever enters the text of a statement. */
export class Filter {
  readonly conditions: string[] = [];
  readonly params: unknown[] = [];

  /** Adds `condition` with `?` as its one parameter, unless `value` is undefined. */
  add(condition: string, value: unknown): this {
    if (value === undefined) return this;
    this.params.push(value);
    this.conditions.push(condition.replace('?', `$${this.params.length}`));
    return this;
  }

  addFixed(condition: string): this {
    this.conditions.push(condition);
    return this;
  }

  addCreated(range: CreatedRange, column = 'created_at'): this {
    return this.add(`${column} > ?`, range.createdAfter)
      .add(`${column} >= ?`, range.createdFrom)
      .add(`${column} < ?`, range.createdBefore)
      .add(`${column} <= ?`, range.createdTo);
  }
}

/** RFC 3339 bounds of the creation time. */
export interface CreatedRange {
  createdAfter?: string | undefined;
  createdFrom?: string | undefined;
  createdBefore?: string | undefined;
  createdTo?: string | undefined;
}

interface Cursor {
  direction: 'n' | 'p';
  at: string;
  id: string;
}

/** One page of `select` (a SELECT without WHERE), ordered by (created_at, id), which must both be columns of the result. */
export async function selectPage<T extends object>(
  db: Queryable,
  select: string,
  filter: Filter,
  page: PageRequest,
): Promise<Page<T>> {
  const cursor = page.cursor === undefined ? undefined : decodeCursor(page.cursor);
  const backwards = cursor?.direction === 'p';
  const ascending = (page.order === 'asc') !== backwards;
  const params = [...filter.params];
  const conditions = [...filter.conditions];
  if (cursor !== undefined) {
    params.push(cursor.at, cursor.id);
    const sign = ascending ? '>' : '<';
    conditions.push(`(created_at, id) ${sign} ($${params.length - 1}::timestamptz, $${params.length})`);
  }
  params.push(page.limit + 1);
  const direction = ascending ? 'ASC' : 'DESC';
  // Microseconds as text: a Date would cut them and the next page would repeat or lose rows.
  const result = await db.query<{ id: string; page_at: string }>(
    `SELECT *, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS page_at FROM (${select}) AS item
     ${conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`}
     ORDER BY created_at ${direction}, id ${direction} LIMIT $${params.length}`,
    params,
  );
  const more = result.rows.length > page.limit;
  const rows = result.rows.slice(0, page.limit);
  if (backwards) rows.reverse();
  const first = rows[0];
  const last = rows.at(-1);
  const hasNext = backwards ? true : more;
  const hasPrevious = backwards ? more : cursor !== undefined;
  return {
    data: rows.map((row) => toCamel<T>(row)),
    nextPage: hasNext && last !== undefined ? encodeCursor({ direction: 'n', at: last.page_at, id: last.id }) : null,
    prevPage:
      hasPrevious && first !== undefined ? encodeCursor({ direction: 'p', at: first.page_at, id: first.id }) : null,
  };
}

function encodeCursor(cursor: Cursor): string {
  return Buffer.from(`${cursor.direction}|${cursor.at}|${cursor.id}`).toString('base64url');
}

function decodeCursor(text: string): Cursor {
  const parts = /^([np])\|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)\|([A-Za-z0-9_]{1,128})$/.exec(
    Buffer.from(text, 'base64url').toString(),
  );
  const [, direction, at, id] = parts ?? [];
  if (direction === undefined || at === undefined || id === undefined || Number.isNaN(Date.parse(at))) {
    throw new LonghaulError('invalid_request', 'is not a cursor this list gave', { field: 'page' });
  }
  return { direction: direction === 'p' ? 'p' : 'n', at, id };
}

/** Cursor of a list ordered by a number that never changes. */
export function encodeSeqCursor(seq: number): string {
  return Buffer.from(`s|${seq}`).toString('base64url');
}

export function decodeSeqCursor(text: string): number {
  const seq = /^s\|(\d{1,15})$/.exec(Buffer.from(text, 'base64url').toString())?.[1];
  if (seq === undefined) {
    throw new LonghaulError('invalid_request', 'is not a cursor this list gave', { field: 'page' });
  }
  return Number(seq);
}
