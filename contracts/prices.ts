/** Zod-free. List prices of models and what a call costs at them; a model without a price is not budgetable. */
import type { Usage } from './definitions.ts';

/** Nano-dollars a token: 5 USD per million tokens = 5,000. Integers, so that sums are exact. */
interface ModelPrice {
  inputNanos: number;
  outputNanos: number;
  cacheReadNanos: number;
  cacheWrite5mNanos: number;
  cacheWrite1hNanos: number;
  /** Calls with more input tokens than this (cached ones included) cost the long-context rates. */
  longContextTokens?: number;
}

const LONG_INPUT_FACTOR = 2;
const LONG_OUTPUT_FACTOR = 1.5;

/** Anthropic: writing to the cache costs 1.25 (5 minutes) or 2 (1 hour) times the input price. */
function claude(
  inputNanos: number,
  outputNanos: number,
  cacheReadNanos: number,
  longContextTokens?: number,
): ModelPrice {
  return {
    inputNanos,
    outputNanos,
    cacheReadNanos,
    cacheWrite5mNanos: inputNanos * 1.25,
    cacheWrite1hNanos: inputNanos * 2,
    ...(longContextTokens === undefined ? {} : { longContextTokens }),
  };
}

/** OpenAI: most models write to the cache at the input price. */
function gpt(
  inputNanos: number,
  outputNanos: number,
  cacheReadNanos: number,
  options: GptPriceOptions = {},
): ModelPrice {
  const cacheWriteNanos = options.cacheWriteNanos ?? inputNanos;
  return {
    inputNanos,
    outputNanos,
    cacheReadNanos,
    cacheWrite5mNanos: cacheWriteNanos,
    cacheWrite1hNanos: cacheWriteNanos,
    ...(options.longContextTokens === undefined ? {} : { longContextTokens: options.longContextTokens }),
  };
}
interface GptPriceOptions {
  cacheWriteNanos?: number;
  longContextTokens?: number;
}

const GPT_LONG_TOKENS = 271_999;
const SONNET_LONG_TOKENS = 200_000;

/** As published on 2026-11-21. */
const PRICES: Readonly<Record<string, ModelPrice>> = {
  // A pretend price: the scripted model is offline and free, but budgets and ledgers must have something to count.
  scripted: claude(1_000, 5_000, 100),

  'claude-fable-5': claude(10_000, 50_000, 1_000),
  'claude-fable-5-1': claude(10_000, 50_000, 250),
  'claude-haiku-4-5': claude(1_000, 5_000, 100),
  'claude-opus-4-0': claude(15_000, 75_000, 1_500),
  'claude-opus-4-1': claude(15_000, 75_000, 1_500),
  'claude-opus-4-5': claude(5_000, 25_000, 500),
  'claude-opus-4-6': claude(5_000, 25_000, 500),
  'claude-opus-4-7': claude(5_000, 25_000, 500),
  'claude-opus-4-8': claude(5_000, 25_000, 500),
  'claude-opus-5': claude(5_000, 25_000, 500),
  'claude-opus-5-5': claude(4_000, 20_000, 200),
  'claude-sonnet-4-0': claude(3_000, 15_000, 300),
  'claude-sonnet-4-5': claude(3_000, 15_000, 300, SONNET_LONG_TOKENS),
  'claude-sonnet-4-6': claude(3_000, 15_000, 300),
  'claude-sonnet-5': claude(2_000, 10_000, 200),

  'gpt-4.1': gpt(2_000, 8_000, 500),
  'gpt-4.1-mini': gpt(400, 1_600, 100),
  'gpt-4.1-nano': gpt(100, 400, 25),
  'gpt-4o': gpt(2_500, 10_000, 1_250),
  'gpt-4o-mini': gpt(150, 600, 75),
  'gpt-5': gpt(1_250, 10_000, 125),
  'gpt-5-mini': gpt(250, 2_000, 25),
  'gpt-5-nano': gpt(50, 400, 5),
  'gpt-5.1': gpt(1_250, 10_000, 125),
  'gpt-5.1-codex-mini': gpt(250, 2_000, 25),
  'gpt-5.2': gpt(1_750, 14_000, 175),
  'gpt-5.3': gpt(1_750, 14_000, 175),
  'gpt-5.3-codex': gpt(1_750, 14_000, 175),
  'gpt-5.4': gpt(2_500, 15_000, 250, { longContextTokens: GPT_LONG_TOKENS }),
  'gpt-5.4-mini': gpt(750, 4_500, 75),
  'gpt-5.4-nano': gpt(200, 1_250, 20),
  'gpt-5.5': gpt(5_000, 30_000, 500, { longContextTokens: GPT_LONG_TOKENS }),
  'gpt-5.6-luna': gpt(200, 1_200, 20, { cacheWriteNanos: 250, longContextTokens: GPT_LONG_TOKENS }),
  'gpt-5.6-sol': gpt(4_000, 20_000, 400, { cacheWriteNanos: 5_000, longContextTokens: GPT_LONG_TOKENS }),
  'gpt-5.6-terra': gpt(2_000, 12_000, 200, { cacheWriteNanos: 2_500, longContextTokens: GPT_LONG_TOKENS }),
  o3: gpt(2_000, 8_000, 500),
  'o3-mini': gpt(1_100, 4_400, 550),
  'o4-mini': gpt(1_100, 4_400, 275),
};

/** Ids of all models that have a price. */
export const PRICED_MODELS: readonly string[] = Object.keys(PRICES);

/** The price of a model id; a dated snapshot (`-20261021`, `-2026-10-21`) costs what its model costs. */
function findPrice(model: string): ModelPrice | undefined {
  const name = model.replace(/^(anthropic|openai)\//, '');
  const undated = name.replace(/-(\d{8}|\d{4}-\d{2}-\d{2})$/, '');
  for (const id of [name, undated]) if (Object.hasOwn(PRICES, id)) return PRICES[id];
  return undefined;
}

/** What the tokens cost at list price, rounded up to a micro-dollar; null when the model has no price. */
export function costMicros(model: string, usage: Usage): number | null {
  const price = findPrice(model);
  if (price === undefined) return null;
  const cached = usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
  const isLong = price.longContextTokens !== undefined && usage.inputTokens + cached > price.longContextTokens;
  const inputNanos =
    usage.inputTokens * price.inputNanos +
    usage.cacheReadTokens * price.cacheReadNanos +
    usage.cacheWrite5mTokens * price.cacheWrite5mNanos +
    usage.cacheWrite1hTokens * price.cacheWrite1hNanos;
  const outputNanos = usage.outputTokens * price.outputNanos;
  const nanos = inputNanos * (isLong ? LONG_INPUT_FACTOR : 1) + outputNanos * (isLong ? LONG_OUTPUT_FACTOR : 1);
  return Math.ceil(nanos / 1_000);
}
