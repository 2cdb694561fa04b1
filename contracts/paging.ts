import { z } from 'zod';
import { LIMITS } from './limits.ts';

/** A whole number in a query string. */
export function intParam(min: number, max: number) {
  return z
    .string()
    .regex(/^-?\d{1,15}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().int().min(min).max(max));
}

export const boolParam = z.enum(['true', 'false']).transform((text) => text === 'true');
export const timeParam = z.iso
  .datetime({ offset: true, error: 'must be an RFC 3339 time' })
  .refine((text) => !Number.isNaN(Date.parse(text)), 'must be an RFC 3339 time')
  // No zone is further away, and Postgres knows none.
  .refine((text) => !/[+-](1[6-9]|2\d):\d\d$/.test(text), 'must be less than 16 hours from UTC');
export const orderParam = z.enum(['asc', 'desc']);
/** An id of any resource, as a filter. */
export const idParam = z.string().regex(/^[a-z]{2,8}_[0-9A-Za-z]{1,64}$/, 'must be an id');

/** Query parameters every list takes. */
export const pageParams = {
  limit: intParam(1, LIMITS.pageSizeMax).optional().meta({ description: 'Items per page', example: '20' }),
  page: z.string().max(512).optional().meta({ description: 'Cursor: `next_page` of the page before' }),
};
export const createdFromTo = { 'created_at[gte]': timeParam.optional(), 'created_at[lte]': timeParam.optional() };
export const createdFilters = {
  'created_at[gt]': timeParam.optional(),
  ...createdFromTo,
  'created_at[lt]': timeParam.optional(),
};

export function pageOf<T extends z.ZodType>(item: T) {
  return z.object({ data: z.array(item), next_page: z.string().nullable() });
}
export function bidirectionalPageOf<T extends z.ZodType>(item: T) {
  return z.object({ data: z.array(item), next_page: z.string().nullable(), prev_page: z.string().nullable() });
}
