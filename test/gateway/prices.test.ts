import { calcPrice } from '@pydantic/genai-prices';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Usage } from '../../contracts/definitions.ts';
import { readLitellmPrices } from '../../contracts/litellm-prices.ts';
import { priceCall, type ModelPrice, type TokenRates } from '../../contracts/model-prices.ts';
import { PRICED_MODELS } from '../../contracts/prices.ts';
import { insertModelRoute } from '../../db/queries/model-routes.ts';
import { deletePrice, setPrices } from '../../db/queries/prices.ts';
import { LivePrices } from '../../gateway/prices/live-prices.ts';
import { ListPrices } from '../../gateway/prices/price-book.ts';
import { NO_USAGE } from '../../gateway/usage/normalise.ts';
import { createLogger } from '../../telemetry/logger.ts';
import {
  eventually,
  ledgerRows,
  messagesRequest,
  mintKey,
  openTestBed,
  post,
  scriptText,
  startGateway,
  startUpstream,
  type TestBed,
} from './support.ts';

const list = new ListPrices();
const million = (usage: Partial<Usage>): Usage => ({ ...NO_USAGE, ...usage });
const costOf = (provider: string | null, model: string, usage: Partial<Usage>): number | null =>
  list.costMicros({ provider, model, teamId: 'team' }, million(usage));

const FLAT: TokenRates = {
  inputPicos: 1_000_000,
  outputPicos: 1_000_000,
  reasoningPicos: 1_000_000,
  cacheReadPicos: 1_000_000,
  cacheWrite5mPicos: 1_000_000,
  cacheWrite1hPicos: 1_000_000,
  webSearchPicos: 0,
};

const scope = (teamId: string | null) => ({ teamId, setBy: 'ada', source: 'manual' as const });
const flat = (usdPerMillion: number): TokenRates => ({
  ...FLAT,
  inputPicos: usdPerMillion * 1_000_000,
  outputPicos: usdPerMillion * 1_000_000,
  reasoningPicos: usdPerMillion * 1_000_000,
});

const vendorOf = (model: string): string =>
  model === 'scripted' ? model : model.startsWith('claude') ? 'anthropic' : 'openai';

describe('list prices', () => {
  it.each([
    ['anthropic', 'claude-opus-5', { inputTokens: 1_000_000, outputTokens: 1_000_000 }, 30_000_000],
    ['anthropic', 'claude-opus-5-20261021', { inputTokens: 1_000_000 }, 5_000_000],
    ['anthropic', 'anthropic/claude-opus-5', { cacheReadTokens: 1_000_000 }, 500_000],
    ['anthropic', 'claude-sonnet-5', { cacheWrite5mTokens: 1_000_000 }, 2_500_000],
    ['anthropic', 'claude-sonnet-5', { cacheWrite1hTokens: 1_000_000 }, 4_000_000],
    // Not in the library: our own table.
    ['anthropic', 'claude-haiku-5-5', { inputTokens: 100_000 }, 10_000],
    ['anthropic', 'claude-haiku-5-5', { inputTokens: 100_001 }, 50_001],
    ['anthropic', 'claude-sonnet-5-5', { cacheReadTokens: 1_000_000 }, 100_000],
    ['scripted', 'scripted', { inputTokens: 1_000_000, outputTokens: 1_000_000 }, 6_000_000],
    // The long-context rates hold for all tokens of the call, and cached tokens count towards the threshold.
    ['openai', 'gpt-5.4', { inputTokens: 271_999 }, 679_998],
    ['openai', 'gpt-5.4', { inputTokens: 272_000, outputTokens: 1_000 }, 1_360_000 + 22_500],
    ['openai', 'gpt-5.4', { inputTokens: 1_000, cacheReadTokens: 271_000 }, 5_000 + 135_500],
    // The same model costs something else elsewhere.
    ['bedrock', 'us.anthropic.claude-sonnet-4-5-20250929-v1:0', { inputTokens: 1_000_000 }, 3_300_000],
    ['bedrock', 'anthropic.claude-opus-5', { cacheWrite1hTokens: 1_000_000 }, 11_000_000],
    ['vertex', 'claude-sonnet-4-5@20250929', { inputTokens: 100_000 }, 300_000],
    ['azure-openai', 'gpt-4o', { outputTokens: 1_000_000 }, 10_000_000],
    [null, 'gpt-5-nano', { inputTokens: 1 }, 1],
    ['anthropic', 'claude-opus-5', { webSearches: 3 }, 30_000],
  ] as const)('%s %s %j', (provider, model, usage, micros) => {
    expect(costOf(provider, model, usage)).toBe(micros);
  });

  it.each([
    // A version nobody has a price for must not cost what its predecessor did.
    ['anthropic', 'claude-opus-5-9'],
    ['bedrock', 'anthropic.claude-opus-5-9'],
    ['openai', 'gpt-5.99'],
    // Whoever runs a server of their own is not billed as the vendor whose model it serves.
    ['my-ollama', 'gpt-4o'],
    ['openai-compatible', 'gpt-4o'],
    ['bedrock', 'scripted'],
    [null, 'toString'],
    [null, '__proto__'],
    [null, ''],
  ])('has none for %s %s', (provider, model) => {
    expect(costOf(provider, model, { inputTokens: 1_000 })).toBeNull();
  });

  it('are there for every model that is named to callers', () => {
    for (const model of PRICED_MODELS) {
      expect(list.find({ provider: vendorOf(model), model, teamId: 'team' })?.modelId, model).toBe(model);
    }
  });

  it('come to what the library comes to, to a micro-dollar', () => {
    const tokens = fc.integer({ min: 0, max: 400_000 });
    const models = [
      ['anthropic', 'claude-sonnet-4-5'],
      ['anthropic', 'claude-opus-5-5'],
      ['openai', 'gpt-5.6-terra'],
      ['openai', 'o4-mini'],
      ['google', 'gemini-2.5-pro'],
    ] as const;
    fc.assert(
      fc.property(
        fc.constantFrom(...models),
        tokens,
        tokens,
        tokens,
        tokens,
        ([provider, model], input, read, write, output) => {
          const usage = { inputTokens: input, cacheReadTokens: read, cacheWrite5mTokens: write, outputTokens: output };
          const theirs = calcPrice(
            {
              input_tokens: input + read + write,
              cache_read_tokens: read,
              cache_write_tokens: write,
              output_tokens: output,
            },
            model,
            { providerId: provider },
          );
          const micros = costOf(provider, model, usage) ?? Number.NaN;
          expect(Math.abs(micros - (theirs?.total_price ?? Number.NaN) * 1e6)).toBeLessThanOrEqual(1);
        },
      ),
    );
  });

  it('are exact and rounded up once, whatever the numbers', () => {
    const amount = fc.integer({ min: 0, max: 1_000_000_000 });
    const rate = fc.integer({ min: 0, max: 10_000_000_000_000 });
    fc.assert(
      fc.property(fc.tuple(amount, amount, amount), fc.tuple(rate, rate, rate), ([a, b, c], [x, y, z]) => {
        const price: ModelPrice = {
          ...FLAT,
          inputPicos: x,
          cacheReadPicos: y,
          outputPicos: z,
          tiers: [],
          modelId: 'm',
          source: 'override',
        };
        const exact = BigInt(a) * BigInt(x) + BigInt(b) * BigInt(y) + BigInt(c) * BigInt(z);
        const micros = priceCall(price, million({ inputTokens: a, cacheReadTokens: b, outputTokens: c }));
        expect(micros).toBe(Number((exact + 999_999n) / 1_000_000n));
      }),
    );
  });
});

describe('a LiteLLM price map', () => {
  const read = readLitellmPrices({
    sample_spec: { input_cost_per_token: 0 },
    'claude-opus-9': {
      litellm_provider: 'anthropic',
      mode: 'chat',
      input_cost_per_token: 3e-6,
      output_cost_per_token: 1.5e-5,
      cache_creation_input_token_cost: 3.75e-6,
      cache_creation_input_token_cost_above_1hr: 6e-6,
      cache_read_input_token_cost: 3e-7,
      input_cost_per_token_above_200k_tokens: 6e-6,
      output_cost_per_token_above_200k_tokens: 2.25e-5,
      cache_read_input_token_cost_above_200k_tokens: 6e-7,
      input_cost_per_token_batches: 1.5e-6,
      search_context_cost_per_query: { search_context_size_low: 0.01, search_context_size_medium: 0.02 },
      max_tokens: 64_000,
    },
    'azure/gpt-9': { litellm_provider: 'azure', mode: 'chat', input_cost_per_token: 3.75e-8, output_cost_per_token: 0 },
    'bedrock/us-east-1/anthropic.claude-9': {
      litellm_provider: 'bedrock',
      input_cost_per_token: 1e-6,
      output_cost_per_token: 1e-6,
    },
    'anthropic.claude-9': {
      litellm_provider: 'bedrock_converse',
      input_cost_per_token: 1e-6,
      output_cost_per_token: 1e-6,
      output_cost_per_reasoning_token: 2e-6,
    },
    'vertex_ai/claude-9@1': {
      litellm_provider: 'vertex_ai-anthropic_models',
      input_cost_per_token: 1e-6,
      output_cost_per_token: 1e-6,
    },
    'fireworks_ai/accounts/x/models/y': {
      litellm_provider: 'fireworks_ai',
      input_cost_per_token: 1e-6,
      output_cost_per_token: 1e-6,
    },
    'together_ai/same': { litellm_provider: 'together_ai', input_cost_per_token: 1e-6, output_cost_per_token: 1e-6 },
    'groq/same': { litellm_provider: 'groq', input_cost_per_token: 1e-6, output_cost_per_token: 1e-6 },
    'together_ai/other': { litellm_provider: 'together_ai', input_cost_per_token: 1e-6, output_cost_per_token: 1e-6 },
    'groq/other': { litellm_provider: 'groq', input_cost_per_token: 2e-6, output_cost_per_token: 1e-6 },
    'text-embedding-9': {
      litellm_provider: 'openai',
      mode: 'embedding',
      input_cost_per_token: 1e-8,
      output_cost_per_token: 0,
    },
    free: { litellm_provider: 'openai', input_cost_per_token: -1, output_cost_per_token: 0 },
    half: { litellm_provider: 'openai', input_cost_per_token: 1e-6 },
    words: { litellm_provider: 'openai', input_cost_per_token: '1e-6', output_cost_per_token: 1 },
    nothing: null,
  });

  it('gives prices by provider and model, with tiers and cache rates', () => {
    expect(read.prices.map(({ provider, model }) => [provider, model])).toEqual([
      ['anthropic', 'claude-opus-9'],
      ['azure-openai', 'gpt-9'],
      ['bedrock', 'anthropic.claude-9'],
      ['vertex', 'claude-9@1'],
      ['openai-compatible', 'accounts/x/models/y'],
      ['openai-compatible', 'same'],
    ]);
    const rates = {
      inputPicos: 3_000_000,
      outputPicos: 15_000_000,
      reasoningPicos: 15_000_000,
      cacheReadPicos: 300_000,
      cacheWrite5mPicos: 3_750_000,
      cacheWrite1hPicos: 6_000_000,
      webSearchPicos: 20_000_000_000,
    };
    expect(read.prices[0]).toMatchObject({
      rates,
      tiers: [
        {
          aboveInputTokens: 200_000,
          ...rates,
          inputPicos: 6_000_000,
          outputPicos: 22_500_000,
          cacheReadPicos: 600_000,
          // Output of reasoning is output.
          reasoningPicos: 22_500_000,
        },
      ],
    });
    expect(read.prices[1]?.rates).toMatchObject({
      inputPicos: 37_500,
      cacheReadPicos: 37_500,
      cacheWrite1hPicos: 37_500,
    });
    expect(read.prices[2]?.rates).toMatchObject({ outputPicos: 1_000_000, reasoningPicos: 2_000_000 });
  });

  it('says what was left out, and why', () => {
    expect(Object.fromEntries(read.skipped.map(({ model, reason }) => [model, reason]))).toEqual({
      'bedrock/us-east-1/anthropic.claude-9': expect.stringContaining('by region') as string,
      'text-embedding-9': expect.stringContaining('generates text') as string,
      free: expect.stringContaining('no price') as string,
      half: expect.stringContaining('input and output') as string,
      words: expect.stringContaining('no price') as string,
      nothing: expect.stringContaining('object') as string,
      other: expect.stringContaining('several vendors') as string,
    });
    expect(read.ignoredFields).toEqual(['input_cost_per_token_batches']);
  });

  it('never throws, whatever is in it', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (map) => {
        const { prices, skipped } = readLitellmPrices(map);
        expect(prices.length + skipped.length).toBeLessThanOrEqual(Object.keys(map).length);
      }),
    );
  });
});

describe('prices that were set', () => {
  let bed: TestBed;
  beforeAll(async () => {
    bed = await openTestBed();
  });
  afterAll(() => bed.close());

  it('go before list prices: the team before the installation, the provider before any', async () => {
    const prices = new LivePrices(bed.pool, createLogger('test', 'silent'));
    const cost = (provider: string | null, teamId: string, model = 'claude-opus-5'): number | null =>
      prices.costMicros({ provider, model, teamId }, million({ inputTokens: 1 }));
    await prices.refresh();
    expect(cost('anthropic', 'a')).toBe(5);
    const [all] = await setPrices(bed.pool, scope(null), [
      { provider: null, model: 'claude-opus-5', rates: flat(7), tiers: [] },
    ]);
    await prices.refresh();
    expect([cost('anthropic', 'a'), cost('anthropic', 'a', 'claude-opus-5-20261021'), cost('bedrock', 'b')]).toEqual([
      7, 7, 7,
    ]);
    const [own] = await setPrices(bed.pool, scope('a'), [
      { provider: null, model: 'claude-opus-5', rates: flat(8), tiers: [] },
      { provider: 'anthropic', model: 'claude-opus-5', rates: flat(9), tiers: [{ aboveInputTokens: 0, ...flat(10) }] },
    ]);
    await prices.refresh();
    expect([cost('anthropic', 'a'), cost('bedrock', 'a'), cost(null, 'a'), cost('anthropic', 'b')]).toEqual([
      10, 8, 8, 7,
    ]);
    expect(await deletePrice(bed.pool, 'b', own?.id ?? '')).toBe(false);
    expect(await deletePrice(bed.pool, 'a', own?.id ?? '')).toBe(true);
    expect(await deletePrice(bed.pool, null, all?.id ?? '')).toBe(true);
    await prices.refresh();
    expect([cost('anthropic', 'a'), cost('bedrock', 'a'), cost('anthropic', 'b')]).toEqual([10, 6, 5]);
  });

  it('reach a running gateway by themselves, and a call asks the database nothing for them', async () => {
    const gateway = await startGateway(bed.pool);
    const key = await mintKey(bed.pool);
    const ask = async (): Promise<number> => {
      await bed.pool.query('DELETE FROM ledger');
      const body = messagesRequest(scriptText([{ text: 'x', usage: { input: 1_000, output: 1_000 } }]));
      expect((await post(`${gateway.url}/v1/messages`, key, body)).status).toBe(200);
      const [row] = await eventually(async () => {
        const rows = await ledgerRows(bed.pool);
        return rows.length === 1 && rows;
      });
      return row?.['cost_micros'] as number;
    };
    expect(await ask()).toBe(6_000);
    await setPrices(bed.pool, scope('team'), [
      { provider: 'scripted', model: 'scripted', rates: flat(100), tiers: [] },
    ]);
    await eventually(async () => (await ask()) === 200_000);
    await gateway.close();
  }, 120_000);

  it('of a deployment go before all others', async () => {
    const upstream = await startUpstream();
    upstream.answer = (_req, res) =>
      res
        .writeHead(200, { 'content-type': 'application/json' })
        .end('{"usage":{"prompt_tokens":1000,"completion_tokens":1000,"prompt_tokens_details":{"cached_tokens":600}}}');
    await setPrices(bed.pool, scope('team'), [{ provider: null, model: 'qwen', rates: flat(100), tiers: [] }]);
    const deployment = { provider: 'openai-compatible' as const, base_url: `${upstream.url}/v1`, model: 'qwen' };
    const price = { input_nanos: 37.5, output_nanos: 2_000, cache_read_nanos: 0.5 };
    for (const [name, spec] of [
      ['house', { ...deployment, price }],
      ['plain', deployment],
    ] as const) {
      await insertModelRoute(bed.pool, { teamId: 'team', userId: 'u', name, spec: { deployments: [spec] } });
    }
    const gateway = await startGateway(bed.pool, { LONGHAUL_GATEWAY_HOSTS: '127.0.0.1' });
    const key = await mintKey(bed.pool);
    const costOfCall = async (model: string): Promise<unknown> => {
      await bed.pool.query('DELETE FROM ledger');
      const body = { model, messages: [{ role: 'user', content: 'x' }] };
      expect((await post(`${gateway.url}/v1/chat/completions`, key, body)).status).toBe(200);
      return eventually(async () => (await ledgerRows(bed.pool))[0]?.['cost_micros'] as number | undefined);
    };
    // 400 x 37.5 + 600 x 0.5 + 1,000 x 2,000 nano-dollars, rounded up.
    expect(await costOfCall('house')).toBe(2_016);
    expect(await costOfCall('plain')).toBe(100_000 + 40_000 + 600);
    await gateway.close();
    await upstream.close();
  }, 120_000);
});
