import type { z } from 'zod';
import type { ErrorCode } from '../contracts/error-codes.ts';
import { ERROR_CATALOGUE, LonghaulError } from '../contracts/error-codes.ts';
import { checkText } from './request-json.ts';

/** Checks `value` against `schema`; the error names the first offending field. */
export function parseWith<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = deepest(parsed.error.issues[0]);
  const extra = issue?.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  const field = fieldName([...(issue?.path ?? []), ...(extra === undefined ? [] : [extra])]);
  const message = extra === undefined ? (issue?.message ?? 'is not valid') : 'unknown field';
  throw new LonghaulError(codeOf(issue), message, field === '' ? {} : { field });
}

/** A refinement may name an entry of the catalogue that says more than that something is wrong. */
function codeOf(issue: Issue | undefined): ErrorCode {
  const code: unknown = issue?.code === 'custom' ? issue.params?.['code'] : undefined;
  return typeof code === 'string' && Object.hasOwn(ERROR_CATALOGUE, code) ? (code as ErrorCode) : 'invalid_request';
}

type Issue = z.core.$ZodIssue;

/** Of a union's branches, the one that got furthest into the value tells most. */
function deepest(issue: Issue | undefined): Issue | undefined {
  if (issue?.code !== 'invalid_union') return issue;
  const branches = issue.errors.flatMap((branch) => deepest(branch[0]) ?? []);
  const best = branches.toSorted((a, b) => weight(b) - weight(a))[0];
  if (best === undefined || weight(best) === 0) return issue;
  return { ...best, path: [...issue.path, ...best.path] };
}

function weight(issue: Issue): number {
  return issue.path.length + (issue.code === 'invalid_type' && issue.path.length === 0 ? 0 : 1);
}

function fieldName(path: PropertyKey[]): string {
  let name = '';
  for (const part of path) {
    if (typeof part === 'number') name += `[${part}]`;
    else name += name === '' ? String(part) : `.${String(part)}`;
  }
  return name.length <= 120 ? name : `${name.slice(0, 117)}...`;
}

/** Query parameters as the schema wants them: `x[]` and `x` both fill an array field; `beta` is ignored. */
export function readQuery(url: string, schema: z.ZodObject): Record<string, string | string[]> {
  const start = url.indexOf('?');
  const out: Record<string, string | string[]> = {};
  if (start === -1) return out;
  for (const [key, value] of new URLSearchParams(url.slice(start + 1))) {
    if (key === 'beta') continue;
    checkText(key, 'a query parameter');
    checkText(value, key);
    const arrayKey = key.endsWith('[]') ? key : `${key}[]`;
    if (arrayKey in schema.shape) {
      const list = Object.hasOwn(out, arrayKey) ? out[arrayKey] : undefined;
      out[arrayKey] = Array.isArray(list) ? [...list, value] : [value];
    } else if (Object.hasOwn(out, key)) {
      throw new LonghaulError('invalid_request', 'is given twice', { field: key });
    } else if (key === '__proto__') {
      throw new LonghaulError('invalid_request', 'unknown field', { field: key });
    } else out[key] = value;
  }
  return out;
}
