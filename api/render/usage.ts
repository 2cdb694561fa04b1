import type { agentEstimate, UsageSumsResource } from '../../contracts/usage.ts';
import type { z } from 'zod';
import type { Percentiles } from '../../db/queries/usage-percentiles.ts';
import type { UsageSums } from '../../db/queries/usage-report.ts';

export function renderUsageSums(sums: UsageSums): UsageSumsResource {
  return {
    calls: sums.calls,
    errors: sums.errors,
    unpriced_calls: sums.unpricedCalls,
    estimated_calls: sums.estimatedCalls,
    input_tokens: sums.inputTokens,
    cache_read_tokens: sums.cacheReadTokens,
    cache_write_5m_tokens: sums.cacheWrite5mTokens,
    cache_write_1h_tokens: sums.cacheWrite1hTokens,
    output_tokens: sums.outputTokens,
    reasoning_tokens: sums.reasoningTokens,
    web_searches: sums.webSearches,
    cost_micros: sums.costMicros,
  };
}

export function renderPercentiles(found: Percentiles): z.infer<typeof agentEstimate>['call'] {
  return {
    samples: found.samples,
    input_tokens: found.inputTokens,
    output_tokens: found.outputTokens,
    cost_micros: found.costMicros,
    latency_ms: found.latencyMs,
    ttft_ms: found.ttftMs,
  };
}
