import { LonghaulError } from '../contracts/error-codes.ts';

const MAX_DEPTH = 64;

/**
 * Refuses JSON that later layers cannot carry: Postgres takes neither NUL nor half of a surrogate pair, JSON takes no
 * infinity, and nesting without end breaks every recursive reader. Iterative for that reason.
 */
export function checkJson(root: unknown): void {
  const open: { value: unknown; path: string; depth: number }[] = [{ value: root, path: '', depth: 0 }];
  for (let item = open.pop(); item !== undefined; item = open.pop()) {
    const { value, path, depth } = item;
    if (typeof value === 'string') checkText(value, path);
    else if (typeof value === 'number') checkNumber(value, path);
    else if (typeof value === 'object' && value !== null) {
      if (depth >= MAX_DEPTH) throw new LonghaulError('invalid_request', 'nested too deeply', { field: shorten(path) });
      for (const [key, child] of Object.entries(value)) {
        const childPath = Array.isArray(value) ? `${path}[${key}]` : `${path}${path === '' ? '' : '.'}${key}`;
        if (!Array.isArray(value)) checkKey(key, childPath);
        open.push({ value: child, path: shorten(childPath), depth: depth + 1 });
      }
    }
  }
}

/** Only that: for what a model said, whose text is cleaned later. Throws `invalid_request`. */
export function checkDepth(root: unknown): void {
  const open: { value: unknown; depth: number }[] = [{ value: root, depth: 0 }];
  for (let item = open.pop(); item !== undefined; item = open.pop()) {
    if (typeof item.value !== 'object' || item.value === null) continue;
    if (item.depth >= MAX_DEPTH) throw new LonghaulError('invalid_request', 'nested too deeply');
    for (const value of Object.values(item.value)) open.push({ value, depth: item.depth + 1 });
  }
}

/** Same for one text of a URL. */
export function checkText(text: string, field: string): void {
  if (text.includes('\0')) throw new LonghaulError('invalid_request', 'must not hold a NUL character', { field });
  if (/\p{Surrogate}/u.test(text)) throw new LonghaulError('invalid_request', 'must be well-formed Unicode', { field });
}

function checkKey(key: string, field: string): void {
  checkText(key, 'a field name');
  if (key === '__proto__')
    throw new LonghaulError('invalid_request', 'is not a usable field name', { field: shorten(field) });
}

function checkNumber(value: number, field: string): void {
  if (!Number.isFinite(value)) throw new LonghaulError('invalid_request', 'must be a number JSON can hold', { field });
}

function shorten(path: string): string {
  return path.length <= 120 ? path : `${path.slice(0, 117)}...`;
}
