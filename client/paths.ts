/** A list of which this is one page. */
export interface Paged<T> {
  data: T[];
  next_page: string | null;
}

/** What is left of something that was deleted. */
export type Deleted = { id: string; type: string };

/** Paths of one collection's items. */
export function pathsOf(collection: string): (id: string, rest?: string) => string {
  return (id, rest = '') => `/v1/${collection}/${encodeURIComponent(id)}${rest}`;
}
