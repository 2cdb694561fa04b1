/** The one place where snake_case columns meet camelCase fields: renames those of one row; values are untouched. */
export function toCamel<T extends object>(row: object): T {
  const out: Record<string, unknown> = {};
  for (const [column, value] of Object.entries(row)) {
    out[column.replaceAll(/_([a-z0-9])/g, (_match, letter: string) => letter.toUpperCase())] = value;
  }
  return out as T;
}
