import { LonghaulError } from '../contracts/error-codes.ts';
import { USAGE_DIMENSIONS, type UsageDimension } from '../contracts/usage.ts';
import type { UsageScope } from '../db/queries/usage-report.ts';

interface ScopeQuery extends Partial<Record<UsageDimension, string | number | undefined>> {
  from?: string | undefined;
  to?: string | undefined;
}

/** The calls a query is about: of the caller's team, by default of this month so far. */
export function usageScope(teamId: string, query: ScopeQuery): UsageScope {
  const now = new Date();
  const to = query.to === undefined ? now : new Date(query.to);
  const from =
    query.from === undefined ? new Date(Date.UTC(to.getUTCFullYear(), to.getUTCMonth(), 1)) : new Date(query.from);
  if (from >= to && query.from !== undefined) {
    throw new LonghaulError('invalid_request', 'must be before `to`', { field: 'from' });
  }
  const filters: UsageScope['filters'] = {};
  for (const name of USAGE_DIMENSIONS) {
    const value = query[name];
    if (value !== undefined) filters[name] = value;
  }
  return { teamId, from, to, filters };
}
