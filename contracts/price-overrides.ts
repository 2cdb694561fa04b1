import { z } from 'zod';
import { time } from './fields.ts';
import { LIMITS } from './limits.ts';
import type { PriceTier, TokenRates } from './model-prices.ts';
import { pageParams } from './paging.ts';

const PICOS_PER_USD_PER_MILLION = 1_000_000;
const PICOS_PER_USD_PER_THOUSAND = 1_000_000_000;

const usdPerMillion = z
  .string()
  .regex(/^\d{1,6}(\.\d{1,6})?$/, 'must be US dollars as a string, like "2.5", with at most 6 decimals')
  .meta({ description: 'US dollars per million tokens', example: '2.5' });
const usdPerThousand = z
  .string()
  .regex(/^\d{1,6}(\.\d{1,6})?$/, 'must be US dollars as a string, like "10", with at most 6 decimals')
  .meta({ description: 'US dollars per thousand searches of the web the provider makes', example: '10' });

const ratesFields = z.strictObject({
  input: usdPerMillion,
  output: usdPerMillion,
  reasoning: usdPerMillion.exactOptional().meta({ description: 'Absent: as output' }),
  cache_read: usdPerMillion.exactOptional().meta({ description: 'Absent: as input' }),
  cache_write_5m: usdPerMillion.exactOptional().meta({ description: 'Absent: as input' }),
  cache_write_1h: usdPerMillion.exactOptional().meta({ description: 'Absent: as cache_write_5m' }),
});
const tokensField = z.number().int().min(1).max(100_000_000);

/** A model as its provider names it, or a provider. */
export const modelName = z.string().regex(/^[\x21-\x7e]{1,256}$/, 'must be 1 to 256 visible ASCII characters');
export const providerName = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be the name of a provider');

export const priceSet = z
  .strictObject({
    model: modelName,
    provider: providerName.nullish().meta({ description: 'Absent or null: whoever serves the model' }),
    usd_per_million_tokens: ratesFields,
    usd_per_thousand_searches: usdPerThousand.exactOptional(),
    tiers: z
      .array(z.strictObject({ above_input_tokens: tokensField, usd_per_million_tokens: ratesFields }))
      .max(LIMITS.priceTiers)
      .optional()
      .meta({ description: 'Rates of calls with more input tokens, cached ones included; they hold for all tokens' }),
  })
  .meta({ id: 'PriceSet' });
export type PriceSet = z.infer<typeof priceSet>;

const allRates = z.object({
  input: z.string(),
  output: z.string(),
  reasoning: z.string(),
  cache_read: z.string(),
  cache_write_5m: z.string(),
  cache_write_1h: z.string(),
});
const priceShape = {
  usd_per_million_tokens: allRates,
  usd_per_thousand_searches: z.string(),
  tiers: z.array(z.object({ above_input_tokens: z.number().int(), usd_per_million_tokens: allRates })),
};

export const price = z
  .object({
    id: z.string(),
    type: z.literal('price'),
    scope: z.enum(['team', 'install']).meta({ description: 'Prices of the installation are set by its operator' }),
    model: z.string(),
    provider: z.string().nullable(),
    ...priceShape,
    source: z.enum(['manual', 'litellm']),
    set_by: z.string(),
    created_at: time,
    updated_at: time,
  })
  .meta({ id: 'Price' });
export type PriceResource = z.infer<typeof price>;

export const effectivePrice = z
  .object({
    type: z.literal('effective_price'),
    model: z.string(),
    provider: z.string().nullable(),
    priced_as: z.string().meta({ description: 'The model whose price it is, where a snapshot has that of its model' }),
    source: z.enum(['override', 'table', 'library']),
    ...priceShape,
  })
  .meta({ id: 'EffectivePrice' });
export const effectivePriceQuery = z.strictObject({ model: modelName, provider: providerName.optional() });

export const priceDeleted = z.object({ id: z.string(), type: z.literal('price_deleted') });
export const pricePath = z.object({ price_id: z.string() });
export const priceListQuery = z.strictObject({
  ...pageParams,
  model: modelName.optional(),
  provider: providerName.optional(),
});

export const priceImport = z
  .strictObject({
    litellm: z
      .record(z.string().max(512), z.unknown())
      .meta({ description: 'The price map of LiteLLM: models by name with costs per token' }),
  })
  .meta({ id: 'PriceImport' });
export const priceImported = z
  .object({
    type: z.literal('price_import'),
    imported: z.number().int(),
    skipped: z.number().int(),
    reasons: z.array(z.object({ model: z.string(), reason: z.string() })).meta({ description: 'The first hundred' }),
    ignored_fields: z.array(z.string()).meta({ description: 'Costs of the file that calls here are not priced by' }),
  })
  .meta({ id: 'PriceImported' });

interface Rates {
  rates: TokenRates;
  tiers: PriceTier[];
}

/** What a request says, in pico-dollars. */
export function ratesOf(set: PriceSet): Rates {
  const webSearchPicos = Math.round(Number(set.usd_per_thousand_searches ?? '0') * PICOS_PER_USD_PER_THOUSAND);
  const read = (fields: PriceSet['usd_per_million_tokens']): TokenRates => {
    const input = fields.input;
    const write = fields.cache_write_5m ?? input;
    return {
      inputPicos: picos(input),
      outputPicos: picos(fields.output),
      reasoningPicos: picos(fields.reasoning ?? fields.output),
      cacheReadPicos: picos(fields.cache_read ?? input),
      cacheWrite5mPicos: picos(write),
      cacheWrite1hPicos: picos(fields.cache_write_1h ?? write),
      webSearchPicos,
    };
  };
  const tiers = (set.tiers ?? [])
    .map((tier) => ({ aboveInputTokens: tier.above_input_tokens, ...read(tier.usd_per_million_tokens) }))
    .sort((a, b) => a.aboveInputTokens - b.aboveInputTokens);
  return { rates: read(set.usd_per_million_tokens), tiers };
}

/** The same for people to read. */
export function renderRates(
  rates: TokenRates,
  tiers: readonly PriceTier[],
): Pick<PriceResource, 'usd_per_million_tokens' | 'usd_per_thousand_searches' | 'tiers'> {
  return {
    usd_per_million_tokens: renderTokens(rates),
    usd_per_thousand_searches: String(rates.webSearchPicos / PICOS_PER_USD_PER_THOUSAND),
    tiers: tiers.map((tier) => ({
      above_input_tokens: tier.aboveInputTokens,
      usd_per_million_tokens: renderTokens(tier),
    })),
  };
}

function renderTokens(rates: TokenRates): z.infer<typeof allRates> {
  return {
    input: usd(rates.inputPicos),
    output: usd(rates.outputPicos),
    reasoning: usd(rates.reasoningPicos),
    cache_read: usd(rates.cacheReadPicos),
    cache_write_5m: usd(rates.cacheWrite5mPicos),
    cache_write_1h: usd(rates.cacheWrite1hPicos),
  };
}

/** Exact: the schema takes no more than six decimals. */
function picos(usdText: string): number {
  const [whole = '0', fraction = ''] = usdText.split('.');
  return Number(whole) * PICOS_PER_USD_PER_MILLION + Number(fraction.padEnd(6, '0'));
}

function usd(ofPicos: number): string {
  const fraction = String(ofPicos % PICOS_PER_USD_PER_MILLION)
    .padStart(6, '0')
    .replace(/0+$/, '');
  const whole = String(Math.floor(ofPicos / PICOS_PER_USD_PER_MILLION));
  return fraction === '' ? whole : `${whole}.${fraction}`;
}
