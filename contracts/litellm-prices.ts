/** Zod-free. Reads the price map of LiteLLM (`model_prices_and_context_window.json`). */
import type { PriceTier, TokenRates } from './model-prices.ts';

export interface ImportedPrice {
  provider: string | null;
  model: string;
  rates: TokenRates;
  tiers: PriceTier[];
}

export interface LitellmImport {
  prices: ImportedPrice[];
  skipped: { model: string; reason: string }[];
  /** Names of costs that calls here are not priced by. */
  ignoredFields: string[];
}

const PICOS_PER_USD = 1_000_000_000_000;
/** Ten dollars a token: whatever is above is a mistake, and sums stay exact below. */
const MAX_PICOS = 10 * PICOS_PER_USD;
const GENERATING_MODES = new Set(['chat', 'completion', 'responses']);
const TIER_SUFFIX = /_above_(\d{1,6})k_tokens$/;

const RATE_FIELDS: Readonly<Record<string, keyof TokenRates>> = {
  input_cost_per_token: 'inputPicos',
  output_cost_per_token: 'outputPicos',
  output_cost_per_reasoning_token: 'reasoningPicos',
  cache_read_input_token_cost: 'cacheReadPicos',
  cache_creation_input_token_cost: 'cacheWrite5mPicos',
  cache_creation_input_token_cost_above_1hr: 'cacheWrite1hPicos',
};

type Found = Partial<Record<keyof TokenRates, number>>;

/** Prices of the models that generate text; says of every other entry why it was left out. */
export function readLitellmPrices(map: Readonly<Record<string, unknown>>): LitellmImport {
  const prices: ImportedPrice[] = [];
  const skipped: LitellmImport['skipped'] = [];
  const ignored = new Set<string>();
  for (const [name, entry] of Object.entries(map)) {
    if (name === 'sample_spec') continue;
    const read = readEntry(name, entry, ignored);
    if (typeof read === 'string') skipped.push({ model: name.slice(0, 256), reason: read });
    else prices.push(read);
  }
  return { prices: withoutDoubles(prices, skipped), skipped, ignoredFields: [...ignored].sort() };
}

/** The price of one entry, or why it has none. */
function readEntry(name: string, entry: unknown, ignored: Set<string>): ImportedPrice | string {
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) return 'is not an object';
  const fields = entry as Record<string, unknown>;
  const mode = fields['mode'];
  if (mode !== undefined && !(typeof mode === 'string' && GENERATING_MODES.has(mode)))
    return 'is no model that generates text';
  if (!/^[\x21-\x7e]{1,256}$/.test(name)) return 'has a name that no request can carry';
  const place = placeOf(name, fields['litellm_provider']);
  if (place === undefined) return 'is priced by region: set it by hand under the name your calls use';
  const base: Found = {};
  const byTier = new Map<number, Found>();
  for (const [field, value] of Object.entries(fields)) {
    if (!/cost/.test(field)) continue;
    const threshold = TIER_SUFFIX.exec(field)?.[1];
    const rate = RATE_FIELDS[field.replace(TIER_SUFFIX, '')];
    if (rate === undefined) {
      if (field !== 'search_context_cost_per_query') ignored.add(field.slice(0, 120));
      continue;
    }
    const picos = picosOf(value);
    if (picos === undefined) return `has a ${field} that is no price`;
    if (threshold === undefined) base[rate] = picos;
    else {
      const aboveInputTokens = Number(threshold) * 1_000;
      byTier.set(aboveInputTokens, { ...byTier.get(aboveInputTokens), [rate]: picos });
    }
  }
  if (base.inputPicos === undefined || base.outputPicos === undefined)
    return 'has no price for input and output tokens';
  const search = searchPicos(fields['search_context_cost_per_query']);
  const rates = complete(base, search);
  let below: Found = base;
  const tiers = [...byTier]
    .sort(([a], [b]) => a - b)
    .map(([aboveInputTokens, found]) => {
      below = { ...below, ...found };
      return { aboveInputTokens, ...complete(below, search) };
    });
  return { ...place, rates, tiers };
}

/** Absent rates cost what the tokens would cost without a cache, an hour at least what five minutes cost. */
function complete(found: Found, webSearchPicos: number): TokenRates {
  const inputPicos = found.inputPicos ?? 0;
  const outputPicos = found.outputPicos ?? 0;
  const write = found.cacheWrite5mPicos ?? inputPicos;
  return {
    inputPicos,
    outputPicos,
    reasoningPicos: found.reasoningPicos ?? outputPicos,
    cacheReadPicos: found.cacheReadPicos ?? inputPicos,
    cacheWrite5mPicos: write,
    cacheWrite1hPicos: found.cacheWrite1hPicos ?? write,
    webSearchPicos,
  };
}

function picosOf(value: unknown): number | undefined {
  if (typeof value !== 'number' || !(value >= 0)) return undefined;
  const picos = Math.round(value * PICOS_PER_USD);
  return picos <= MAX_PICOS ? picos : undefined;
}

/** A search costs what one with a medium context does, where that makes a difference. */
function searchPicos(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return picosOf((value as Record<string, unknown>)['search_context_size_medium']) ?? 0;
}

/** LiteLLM names a model `provider/name` for some providers and plainly for others; bedrock names may hold a region. */
function placeOf(name: string, litellmProvider: unknown): { provider: string | null; model: string } | undefined {
  const said = typeof litellmProvider === 'string' ? litellmProvider.toLowerCase() : '';
  const provider = providerOf(said);
  const prefix = name.split('/', 1)[0] ?? '';
  if (prefix === name) return { provider, model: name };
  const isPrefix = prefix === said || (provider !== 'openai-compatible' && providerOf(prefix) === provider);
  const model = isPrefix ? name.slice(prefix.length + 1) : name;
  if (provider === 'bedrock' && model.includes('/')) return undefined;
  return { provider, model };
}

function providerOf(said: string): string | null {
  if (said === '') return null;
  if (said.startsWith('bedrock')) return 'bedrock';
  if (said.startsWith('vertex_ai')) return 'vertex';
  if (said === 'azure' || said === 'azure_text') return 'azure-openai';
  if (said === 'openai' || said === 'text-completion-openai') return 'openai';
  // Every other vendor is asked through an OpenAI-compatible deployment.
  return said === 'anthropic' ? said : 'openai-compatible';
}

/** Of two entries for the same model and provider one is enough when they agree; else nobody can say which is meant. */
function withoutDoubles(prices: ImportedPrice[], skipped: LitellmImport['skipped']): ImportedPrice[] {
  const byPlace = new Map<string, ImportedPrice[]>();
  for (const item of prices) {
    const place = JSON.stringify([item.provider, item.model]);
    byPlace.set(place, [...(byPlace.get(place) ?? []), item]);
  }
  return [...byPlace.values()].flatMap(([first, ...others]) => {
    if (first === undefined) return [];
    const said = JSON.stringify([first.rates, first.tiers]);
    if (others.every((other) => JSON.stringify([other.rates, other.tiers]) === said)) return [first];
    skipped.push({
      model: first.model,
      reason: 'has different prices at several vendors: set the one you use by hand',
    });
    return [];
  });
}
