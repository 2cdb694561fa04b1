import type { ModelPrice, PriceTier, TokenRates } from '../../contracts/model-prices.ts';

/** Anthropic's rule: an hour of cache costs twice the input price, five minutes 1.25 times. */
function claude(modelId: string, usd: { input: number; output: number; cacheRead: number }): ModelPrice {
  return { ...claudeRates(usd), tiers: [], modelId, source: 'table' };
}

function claudeRates(usd: { input: number; output: number; cacheRead: number }): TokenRates {
  const inputPicos = Math.round(usd.input * 1_000_000);
  const outputPicos = Math.round(usd.output * 1_000_000);
  return {
    inputPicos,
    outputPicos,
    reasoningPicos: outputPicos,
    cacheReadPicos: Math.round(usd.cacheRead * 1_000_000),
    cacheWrite5mPicos: (inputPicos * 5) / 4,
    cacheWrite1hPicos: inputPicos * 2,
    webSearchPicos: 10_000_000_000,
  };
}

const HAIKU_LONG: PriceTier = {
  aboveInputTokens: 100_000,
  ...claudeRates({ input: 0.5, output: 2.5, cacheRead: 0.05 }),
};

/** What the library lacks or has wrong, as published on 2026-11-21; an entry goes when the library has caught up. */
const PRICES: readonly ModelPrice[] = [
  // A pretend price: the scripted model is offline and free, but budgets and ledgers must have something to count.
  claude('scripted', { input: 1, output: 5, cacheRead: 0.1 }),
  { ...claude('claude-haiku-5-5', { input: 0.1, output: 0.5, cacheRead: 0.01 }), tiers: [HAIKU_LONG] },
  claude('claude-sonnet-5-5', { input: 2, output: 10, cacheRead: 0.1 }),
];

/** Who sells these models at these prices; elsewhere (Bedrock by region) they may cost something else. */
const VENDORS: ReadonlySet<string | null> = new Set([null, 'anthropic', 'scripted']);

const BY_MODEL: ReadonlyMap<string, ModelPrice> = new Map(PRICES.map((price) => [price.modelId, price]));

/** The price of our own table, for models the library does not have. */
export function findTablePrice(provider: string | null, model: string): ModelPrice | undefined {
  return VENDORS.has(provider) ? BY_MODEL.get(model) : undefined;
}
