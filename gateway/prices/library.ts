import { calcPrice, findProvider, type ModelPrice as LibraryPrice } from '@pydantic/genai-prices';
import type { ModelPrice, PriceTier, TokenRates } from '../../contracts/model-prices.ts';

/** Our kinds of upstreams under the library's names; other names are looked up as they are. */
const LIBRARY_PROVIDERS: Readonly<Record<string, string>> = {
  'azure-openai': 'azure',
  bedrock: 'aws',
  gemini: 'google',
  vertex: 'google',
};

const PICOS_PER_USD_PER_MILLION = 1_000_000;
const PICOS_PER_USD_PER_THOUSAND = 1_000_000_000;

/** The price the library has for a model at this moment; it knows prices that begin on a day or hold for hours of it. */
export function findLibraryPrice(provider: string | null, model: string, nowMs: number): ModelPrice | undefined {
  const options = { timestamp: new Date(nowMs) };
  if (provider === null) return read(model, options);
  const providerId = LIBRARY_PROVIDERS[provider] ?? provider;
  // The library also takes names that merely resemble a provider's: a local server is not to be billed as its namesake.
  return findProvider({ providerId })?.id === providerId ? read(model, { ...options, providerId }) : undefined;
}

function read(model: string, options: { timestamp: Date; providerId?: string }): ModelPrice | undefined {
  const found = calcPrice({ input_tokens: 1 }, model, options);
  if (found === null || isOtherVersion(model, found.model.id)) return undefined;
  const price = found.model_price;
  // Without both, the tokens of a call cannot be priced (embeddings, images, prices by the request).
  if (price['input_mtok'] === undefined || price['output_mtok'] === undefined) return undefined;
  const isClaude = found.model.id.includes('claude');
  const tiers: PriceTier[] = tierStarts(price).map((aboveInputTokens) => ({
    aboveInputTokens,
    ...ratesAt(price, aboveInputTokens, isClaude),
  }));
  return { ...ratesAt(price, -1, isClaude), tiers, modelId: found.model.id, source: 'library' };
}

/** The library matches by beginnings: a version it does not know yet must not cost what its predecessor did. */
function isOtherVersion(model: string, foundId: string): boolean {
  const known = foundId.replace(/^(regional|global)\./, '');
  const at = model.toLowerCase().indexOf(known);
  return at !== -1 && /^[-.]\d{1,2}(?![0-9a-z])/.test(model.slice(at + known.length));
}

/** The rates of a call whose input passes every tier up to and with `start`. */
function ratesAt(price: LibraryPrice, start: number, isClaude: boolean): TokenRates {
  const rate = (name: string, picosPerUsd = PICOS_PER_USD_PER_MILLION): number | undefined => {
    const value = price[name];
    if (value === undefined) return undefined;
    const usd =
      typeof value === 'number' ? value : (value.tiers.findLast((tier) => tier.start <= start)?.price ?? value.base);
    return Math.round(usd * picosPerUsd);
  };
  const inputPicos = rate('input_mtok') ?? 0;
  const outputPicos = rate('output_mtok') ?? 0;
  const write = rate('cache_write_5m_mtok') ?? rate('cache_write_mtok');
  return {
    inputPicos,
    outputPicos,
    reasoningPicos: rate('output_reasoning_mtok') ?? outputPicos,
    cacheReadPicos: rate('cache_read_mtok') ?? inputPicos,
    cacheWrite5mPicos: write ?? inputPicos,
    // Every vendor of Claude takes twice the input price for an hour; the library has that for Anthropic alone.
    cacheWrite1hPicos: rate('cache_write_1h_mtok') ?? (isClaude ? 2 * inputPicos : (write ?? inputPicos)),
    webSearchPicos: rate('web_searches_kcount', PICOS_PER_USD_PER_THOUSAND) ?? 0,
  };
}

function tierStarts(price: LibraryPrice): number[] {
  const starts = Object.values(price).flatMap((value) =>
    typeof value === 'object' ? value.tiers.map((tier) => tier.start) : [],
  );
  return [...new Set(starts)].sort((a, b) => a - b);
}
