import { LIMITS } from '../contracts/limits.ts';
import type { CreatedRange, Page, PageRequest } from '../db/paging.ts';

interface PageQuery {
  limit?: number | undefined;
  page?: string | undefined;
  order?: 'asc' | 'desc' | undefined;
}

/** Page parameters with their defaults. */
export function pageRequest(query: PageQuery): PageRequest {
  return { limit: query.limit ?? LIMITS.pageSizeDefault, cursor: query.page, order: query.order };
}

/** The `created_at[…]` filters of a list. */
export function createdRange(query: {
  'created_at[gt]'?: string | undefined;
  'created_at[gte]'?: string | undefined;
  'created_at[lt]'?: string | undefined;
  'created_at[lte]'?: string | undefined;
}): CreatedRange {
  return {
    createdAfter: query['created_at[gt]'],
    createdFrom: query['created_at[gte]'],
    createdBefore: query['created_at[lt]'],
    createdTo: query['created_at[lte]'],
  };
}

export function renderPage<Row, Item>(
  page: Page<Row>,
  render: (row: Row) => Item,
): { data: Item[]; next_page: string | null } {
  return { data: page.data.map(render), next_page: page.nextPage };
}
