/** Zod-free. What the tokens of a model cost, and what a call costs at that. */
import type { Usage } from './definitions.ts';

/**
 * Pico-dollars a token: 5 USD per million tokens = 5,000,000. Whole numbers, so that sums are exact; real prices go
 * below a nano-dollar a token (0.0375 USD per million), none goes below a pico-dollar.
 */
export interface TokenRates {
  inputPicos: number;
  /** Of all output tokens but those of reasoning. */
  outputPicos: number;
  reasoningPicos: number;
  cacheReadPicos: number;
  cacheWrite5mPicos: number;
  cacheWrite1hPicos: number;
  /** One search of the web by the provider itself. */
  webSearchPicos: number;
}

/** Rates of calls with more input tokens, cached ones included, than `aboveInputTokens`: they hold for all tokens. */
export interface PriceTier extends TokenRates {
  aboveInputTokens: number;
}

export interface ModelPrice extends TokenRates {
  /** Ascending by `aboveInputTokens`. */
  tiers: readonly PriceTier[];
  /** The model's own name, where the one asked for is a snapshot or an alias of it. */
  modelId: string;
  source: 'override' | 'table' | 'library';
}

/** The price of a deployment, as routes are configured: nano-dollars a token, parts of them too. */
export interface DeploymentPrice {
  input_nanos: number;
  output_nanos: number;
  cache_read_nanos?: number;
  cache_write_5m_nanos?: number;
  cache_write_1h_nanos?: number;
}

/** The same in pico-dollars; what is absent costs what the tokens cost without a cache. */
export function fromNanos(price: DeploymentPrice): TokenRates & { tiers: readonly PriceTier[] } {
  const outputPicos = picosOf(price.output_nanos);
  const write = price.cache_write_5m_nanos ?? price.input_nanos;
  return {
    inputPicos: picosOf(price.input_nanos),
    outputPicos,
    reasoningPicos: outputPicos,
    cacheReadPicos: picosOf(price.cache_read_nanos ?? price.input_nanos),
    cacheWrite5mPicos: picosOf(write),
    cacheWrite1hPicos: picosOf(price.cache_write_1h_nanos ?? write),
    webSearchPicos: 0,
    tiers: [],
  };
}

function picosOf(nanos: number): number {
  return Math.round(nanos * 1_000);
}

const PICOS_PER_MICRO = 1_000_000;

/** What a call costs, rounded up to a whole micro-dollar once, after all its tokens are added up. */
export function priceCall(price: ModelPrice, usage: Usage): number {
  const inputTokens = usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
  const rates = price.tiers.findLast((tier) => inputTokens > tier.aboveInputTokens) ?? price;
  const reasoningTokens = Math.min(usage.reasoningTokens, usage.outputTokens);
  const parts: [number, number][] = [
    [usage.inputTokens, rates.inputPicos],
    [usage.cacheReadTokens, rates.cacheReadPicos],
    [usage.cacheWrite5mTokens, rates.cacheWrite5mPicos],
    [usage.cacheWrite1hTokens, rates.cacheWrite1hPicos],
    [usage.outputTokens - reasoningTokens, rates.outputPicos],
    [reasoningTokens, rates.reasoningPicos],
    [usage.webSearches ?? 0, rates.webSearchPicos],
  ];
  const picos = parts.reduce((sum, [tokens, rate]) => sum + tokens * rate, 0);
  if (Number.isSafeInteger(picos)) return Math.ceil(picos / PICOS_PER_MICRO);
  const exact = parts.reduce((sum, [tokens, rate]) => sum + BigInt(tokens) * BigInt(rate), 0n);
  return Number((exact + BigInt(PICOS_PER_MICRO - 1)) / BigInt(PICOS_PER_MICRO));
}
