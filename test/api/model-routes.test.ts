import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TestApi } from './support.ts';
import { testApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

const LOCAL = { provider: 'openai-compatible', model: 'llama', base_url: 'http://localhost:11434/v1' };

describe('model routes', () => {
  it('are made, read, edited field by field, listed and deleted', async () => {
    const body = { name: 'fast', deployments: [{ ...LOCAL, api_key: 'env:VLLM_KEY', weight: 2 }], retries: 4 };
    const made = (await api.post('/v1/model-routes', body).expect(200)).body as { id: string };
    expect(made).toMatchObject({
      ...body,
      type: 'model_route',
      strategy: 'simple-shuffle',
      fallbacks: {},
      allowed_fails: 3,
      cooldown_ms: 5_000,
    });
    const change = { strategy: 'least-busy', retries: null, fallbacks: { context_window: ['large'] } };
    const edited = await api.post(`/v1/model-routes/${made.id}`, change).expect(200);
    expect(edited.body).toMatchObject({ ...body, ...change, retries: 2 });
    expect((await api.get(`/v1/model-routes/${made.id}`).expect(200)).body).toEqual(edited.body);
    expect((await api.get('/v1/model-routes').expect(200)).body).toMatchObject({ data: [edited.body] });
    const twice = await api.post('/v1/model-routes', body).expect(409);
    expect(twice.body).toMatchObject({ error: { code: 'version_conflict', field: 'name' } });
    await api.delete(`/v1/model-routes/${made.id}`).expect(200);
    await api.get(`/v1/model-routes/${made.id}`).expect(404);
    const sql = 'SELECT action FROM audit WHERE resource = $1';
    const audit = await api.pool.query<{ action: string }>(sql, [made.id]);
    const actions = audit.rows.map(({ action }) => action);
    expect(actions.toSorted()).toEqual(['model_route.create', 'model_route.delete', 'model_route.update']);
  });

  it.each([
    [{ ...LOCAL, api_key: 'sk-a-real-key' }, 'deployments[0].api_key'],
    [{ ...LOCAL, base_url: 'http://user:sk-a-real-key@host/v1' }, 'deployments[0].base_url'],
    [{ ...LOCAL, base_url: 'http://host/v1?key=sk-a-real-key' }, 'deployments[0].base_url'],
    [{ ...LOCAL, base_url: 'file:///etc/passwd' }, 'deployments[0].base_url'],
    [{ ...LOCAL, headers: { authorization: 'sk-a-real-key' } }, 'deployments[0].headers'],
    [
      { provider: 'bedrock', model: 'm', region: 'eu', secret_access_key: 'sk-a-real-key' },
      'deployments[0].secret_access_key',
    ],
    [{ provider: 'bedrock', model: 'm', region: 'eu', access_key_id: 'env:ID' }, 'deployments[0].secret_access_key'],
    [{ provider: 'bedrock', model: 'm', region: 'evil.example/' }, 'deployments[0].region'],
    [
      { provider: 'vertex', model: 'm', project: 'p', location: 'l', credentials: '{"private_key":"sk-a-real-key"}' },
      'deployments[0].credentials',
    ],
    [{ provider: 'azure-openai', model: 'm', base_url: 'https://x', api_version: 'v' }, 'deployments[0].api_key'],
    [{ ...LOCAL, model: 'a*b' }, 'deployments[0].model'],
    [{ provider: 'cohere', model: 'm' }, 'deployments[0].provider'],
  ])('refuse %j, naming the field and repeating nothing', async (deployment, field) => {
    const answer = await api.post('/v1/model-routes', { name: 'bad', deployments: [deployment] }).expect(400);
    expect(answer.body).toMatchObject({ error: { code: 'invalid_request', field } });
    expect(JSON.stringify(answer.body)).not.toContain('sk-a-real-key');
  });
});

it('a team’s policy says which models it may call', async () => {
  expect((await api.get('/v1/model-policy').expect(200)).body).toMatchObject({
    allowed_models: null,
    updated_at: null,
  });
  const allowed_models = ['claude-*', 'fast'];
  await api.post('/v1/model-policy', { allowed_models }).expect(200);
  expect((await api.get('/v1/model-policy').expect(200)).body).toMatchObject({ allowed_models });
  await api.post('/v1/model-policy', { allowed_models: ['a*b'] }).expect(400);
  await api.post('/v1/model-policy', { allowed_models: null }).expect(200);
});
