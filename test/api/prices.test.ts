import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import request from 'supertest';
import { setPrices } from '../../db/queries/prices.ts';
import { makeAgent, testApi, type TestApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

const RATES = { input: '3', output: '15' };
const set = (body: object) => api.post('/v1/prices', { model: 'house-model', usd_per_million_tokens: RATES, ...body });

describe('prices', () => {
  it('are set, read, replaced and deleted', async () => {
    const made = await set({
      provider: 'openai',
      usd_per_million_tokens: { ...RATES, cache_read: '0.0375' },
      usd_per_thousand_searches: '10',
      tiers: [{ above_input_tokens: 200_000, usd_per_million_tokens: { input: '6', output: '22.5' } }],
    }).expect(200);
    expect(made.body).toMatchObject({
      type: 'price',
      scope: 'team',
      model: 'house-model',
      provider: 'openai',
      usd_per_million_tokens: {
        input: '3',
        output: '15',
        reasoning: '15',
        cache_read: '0.0375',
        cache_write_5m: '3',
        cache_write_1h: '3',
      },
      usd_per_thousand_searches: '10',
      tiers: [{ above_input_tokens: 200_000, usd_per_million_tokens: { input: '6', output: '22.5', cache_read: '6' } }],
      source: 'manual',
      set_by: 'ada',
    });
    const id = made.body.id as string;
    expect((await api.get(`/v1/prices/${id}`).expect(200)).body).toEqual(made.body);
    const again = await set({ provider: 'openai' }).expect(200);
    expect(again.body).toMatchObject({ id, tiers: [], usd_per_million_tokens: { cache_read: '3' } });
    const listed = await api.get('/v1/prices?model=house-model').expect(200);
    expect(listed.body.data).toEqual([again.body]);
    const other = request(api.app).get(`/v1/prices/${id}`).set('authorization', `Bearer ${api.otherKey}`);
    await other.expect(404);
    const otherDelete = request(api.app).delete(`/v1/prices/${id}`).set('authorization', `Bearer ${api.otherKey}`);
    await otherDelete.expect(404);
    await api.delete(`/v1/prices/${id}`).expect(200);
    await api.get(`/v1/prices/${id}`).expect(404);
    const audit = await api.pool.query(`SELECT action FROM audit WHERE resource = $1 ORDER BY seq`, [id]);
    expect(audit.rows).toEqual([{ action: 'price.set' }, { action: 'price.set' }, { action: 'price.delete' }]);
  });

  it('of the installation can be seen by all and deleted by none of them', async () => {
    const rates = {
      inputPicos: 1,
      outputPicos: 1,
      reasoningPicos: 1,
      cacheReadPicos: 1,
      cacheWrite5mPicos: 1,
      cacheWrite1hPicos: 1,
      webSearchPicos: 0,
    };
    const scope = { teamId: null, setBy: 'operator', source: 'litellm' as const };
    const [row] = await setPrices(api.pool, scope, [{ provider: null, model: 'shared', rates, tiers: [] }]);
    const seen = await api.get(`/v1/prices/${row?.id ?? ''}`).expect(200);
    expect(seen.body).toMatchObject({ scope: 'install', usd_per_million_tokens: { input: '0.000001' } });
    const refused = await api.delete(`/v1/prices/${row?.id ?? ''}`).expect(403);
    expect(refused.body.error.code).toBe('forbidden');
  });

  it.each([
    [{ usd_per_million_tokens: { input: '-1', output: '1' } }, 'usd_per_million_tokens.input'],
    [{ usd_per_million_tokens: { input: '1.0000001', output: '1' } }, 'usd_per_million_tokens.input'],
    [{ usd_per_million_tokens: { input: '1' } }, 'usd_per_million_tokens.output'],
    [{ usd_per_million_tokens: { ...RATES, cached: '1' } }, 'usd_per_million_tokens.cached'],
    [{ model: 'a b' }, 'model'],
    [{ model: 'x'.repeat(257) }, 'model'],
    [{ provider: 'Ünknown' }, 'provider'],
    [{ tiers: [{ above_input_tokens: 0, usd_per_million_tokens: RATES }] }, 'tiers[0].above_input_tokens'],
  ])('refuse %j', async (body, field) => {
    const refused = await set(body).expect(400);
    expect(refused.body.error).toMatchObject({ code: 'invalid_request', field });
  });

  it('tell what a call would cost, and where that is from', async () => {
    const library = await api.get('/v1/prices/effective?model=claude-opus-5-20261021').expect(200);
    expect(library.body).toMatchObject({
      type: 'effective_price',
      source: 'library',
      priced_as: 'claude-opus-5',
      usd_per_million_tokens: {
        input: '5',
        output: '25',
        cache_read: '0.5',
        cache_write_5m: '6.25',
        cache_write_1h: '10',
      },
    });
    const table = await api.get('/v1/prices/effective?model=claude-haiku-5-5&provider=anthropic').expect(200);
    expect(table.body).toMatchObject({ source: 'table', tiers: [{ above_input_tokens: 100_000 }] });
    await set({ model: 'claude-opus-5', provider: 'bedrock' }).expect(200);
    const bedrock = await api.get('/v1/prices/effective?model=claude-opus-5&provider=bedrock').expect(200);
    expect(bedrock.body).toMatchObject({ source: 'override', usd_per_million_tokens: { input: '3' } });
    const vendor = await api.get('/v1/prices/effective?model=claude-opus-5&provider=anthropic').expect(200);
    expect(vendor.body).toMatchObject({ source: 'library' });
    await api.get('/v1/prices/effective?model=nobody-knows-it').expect(404);
  });

  it('make a model fit for a budget', async () => {
    const { agentId, environmentId } = await makeAgent(api, { model: 'garage-model' });
    const budget = { type: 'limit', max_list_cost: { amount: '100', currency: 'USD' } };
    const open = () => api.post('/v1/sessions', { agent: agentId, environment_id: environmentId, budget });
    expect((await open().expect(400)).body.error.code).toBe('model_not_budgetable');
    await set({ model: 'garage-model', provider: 'openai' }).expect(200);
    await open().expect(200);
  });

  it('make a route fit for a budget when everybody who may answer has one', async () => {
    const { agentId, environmentId } = await makeAgent(api, { model: 'smart' });
    const budget = { type: 'limit', max_list_cost: { amount: '100', currency: 'USD' } };
    const open = () => api.post('/v1/sessions', { agent: agentId, environment_id: environmentId, budget });
    expect((await open().expect(400)).body.error.message).toContain('smart');
    const known = { provider: 'anthropic', model: 'claude-opus-5' };
    const unknown = { provider: 'openai-compatible', base_url: 'http://127.0.0.1:9/v1', model: 'cellar-model' };
    const made = await api.post('/v1/model-routes', { name: 'smart', deployments: [known, unknown] }).expect(200);
    expect((await open().expect(400)).body.error).toMatchObject({
      code: 'model_not_budgetable',
      message: expect.stringContaining('cellar-model') as string,
    });
    const priced = { ...unknown, price: { input_nanos: 1, output_nanos: 1 } };
    const id = made.body.id as string;
    await api.post(`/v1/model-routes/${id}`, { deployments: [known, priced] }).expect(200);
    await open().expect(200);
  });

  it('come from a LiteLLM price map', async () => {
    const litellm = {
      'map-model': { litellm_provider: 'anthropic', input_cost_per_token: 1e-6, output_cost_per_token: 2e-6 },
      'map-image': { litellm_provider: 'openai', mode: 'image_generation', output_cost_per_image: 1 },
    };
    const done = await api.post('/v1/prices/import', { litellm }).expect(200);
    expect(done.body).toEqual({
      type: 'price_import',
      imported: 1,
      skipped: 1,
      reasons: [{ model: 'map-image', reason: 'is no model that generates text' }],
      ignored_fields: [],
    });
    const listed = await api.get('/v1/prices?model=map-model').expect(200);
    expect(listed.body.data).toMatchObject([
      { source: 'litellm', provider: 'anthropic', usd_per_million_tokens: { input: '1', output: '2' } },
    ]);
    await api.post('/v1/prices/import', { litellm: [] }).expect(400);
  });

  it('are limited in number, all or nothing', async () => {
    const entry = { litellm_provider: 'openai', input_cost_per_token: 1e-6, output_cost_per_token: 2e-6 };
    const litellm = Object.fromEntries(Array.from({ length: 10_001 }, (_, index) => [`m-${index}`, entry]));
    const refused = await api.post('/v1/prices/import', { litellm }).expect(400);
    expect(refused.body.error.message).toContain('10000');
    expect((await api.get('/v1/prices?model=m-1').expect(200)).body.data).toEqual([]);
  });
});
