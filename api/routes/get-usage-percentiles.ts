import { LIMITS } from '../../contracts/limits.ts';
import { percentilesQuery, usagePercentiles } from '../../contracts/usage.ts';
import { usagePercentiles as readPercentiles } from '../../db/queries/usage-percentiles.ts';
import { endpoint } from '../endpoint.ts';
import { renderPercentiles } from '../render/usage.ts';
import { usageScope } from '../usage-scope.ts';

export const getUsagePercentiles = endpoint({
  method: 'get',
  path: '/v1/usage/percentiles',
  tag: 'Usage',
  summary: 'Spread of tokens, cost and time over calls, turns or sessions',
  description: 'Groups with the most samples first. Calls that did not end well are left out.',
  query: percentilesQuery,
  response: usagePercentiles,
  async handle({ db, principal }, { query }) {
    const scope = usageScope(principal.teamId, query);
    const per = query.per ?? 'call';
    const asked = {
      groupBy: query['group_by[]'] ?? (['agent'] as const),
      per,
      limit: query.limit ?? LIMITS.pageSizeDefault,
    };
    const found = await readPercentiles(db, scope, asked);
    return {
      type: 'usage_percentiles' as const,
      from: scope.from.toISOString(),
      to: scope.to.toISOString(),
      per,
      data: found.map((item) => ({ group: item.group, ...renderPercentiles(item) })),
    };
  },
});
