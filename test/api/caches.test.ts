import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AgentResource } from '../../contracts/agents.ts';
import { addCacheCounts } from '../../db/queries/cache-counts.ts';
import { recordPrefix } from '../../db/queries/prompt-prefixes.ts';
import { testApi, type TestApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

async function makeAgent(body: object = {}): Promise<AgentResource> {
  return (await api.post('/v1/agents', { name: 'a', model: 'scripted', ...body }).expect(200)).body as AgentResource;
}

describe('caching fields of an agent', () => {
  it('have defaults, shorthands, and belong to a version', async () => {
    const plain = await makeAgent();
    expect(plain).toMatchObject({ prompt_caching: { type: 'auto', ttl: '5m' }, response_cache: null });
    const agent = await makeAgent({ prompt_caching: { type: 'auto', ttl: '1h' }, response_cache: {} });
    expect(agent).toMatchObject({
      version: 1,
      prompt_caching: { type: 'auto', ttl: '1h' },
      response_cache: { ttl: 'default', tool_calls: false },
    });
    const edit = async (body: object): Promise<AgentResource> =>
      (await api.post(`/v1/agents/${agent.id}`, body).expect(200)).body as AgentResource;
    expect(await edit({ name: 'b' })).toMatchObject({ version: 2, response_cache: agent.response_cache });
    expect(await edit({ response_cache: { ttl: '24h', tool_calls: true }, prompt_caching: 'off' })).toMatchObject({
      version: 3,
      prompt_caching: { type: 'off' },
      response_cache: { ttl: '24h', tool_calls: true },
    });
    expect(await edit({ response_cache: null, prompt_caching: null })).toMatchObject({
      version: 4,
      prompt_caching: { type: 'auto', ttl: '5m' },
      response_cache: null,
    });
    expect((await api.get(`/v1/agents/${agent.id}?version=1`)).body).toMatchObject({
      response_cache: { ttl: 'default' },
    });
  });

  it.each([
    [{ response_cache: { ttl: '2h' } }, 'response_cache.ttl'],
    [{ response_cache: { size: 1 } }, 'response_cache'],
    [{ response_cache: 'on' }, 'response_cache'],
    [{ prompt_caching: 'always' }, 'prompt_caching'],
    [{ prompt_caching: { type: 'auto', ttl: '24h' } }, 'prompt_caching'],
  ])('refuse %j by name', async (body, field) => {
    const { error } = (await api.post('/v1/agents', { name: 'a', model: 'scripted', ...body }).expect(400)).body as {
      error: { message: string };
    };
    expect(error.message).toContain(field);
  });

  it('are there for keys, too', async () => {
    const made = (await api.post('/v1/keys', { name: 'k', response_cache: { ttl: '1h' } }).expect(200)).body as {
      id: string;
    };
    expect(made).toMatchObject({ prompt_caching: null, response_cache: { ttl: '1h', tool_calls: false } });
    const changed = await api.post(`/v1/keys/${made.id}`, { prompt_caching: 'auto' }).expect(200);
    expect(changed.body).toMatchObject({
      prompt_caching: { type: 'auto', ttl: '5m' },
      response_cache: { ttl: '1h', tool_calls: false },
    });
    const cleared = await api.post(`/v1/keys/${made.id}`, { prompt_caching: null, response_cache: null }).expect(200);
    expect(cleared.body).toMatchObject({ prompt_caching: null, response_cache: null });
  });
});

describe('GET /v1/agents/{agent_id}/cache', () => {
  it('shows prefixes and hit rates of a version', async () => {
    const { id } = await makeAgent();
    expect((await api.get(`/v1/agents/${id}/cache`).expect(200)).body).toEqual({
      agent_id: id,
      version: 1,
      prompt_fingerprint: null,
      prompt_prefix_changes: 0,
      prompt_prefixes: [],
      layers: [],
    });
    const agent = { id, version: 1, teamId: 'team', sessionId: null };
    const digests = { tools: 't', system: 's', skills: 'k' };
    await recordPrefix(api.pool, agent, { fingerprint: 'one', digests, sizeBytes: 5 });
    await recordPrefix(api.pool, agent, { fingerprint: 'two', digests: { ...digests, tools: 'u' }, sizeBytes: 6 });
    const counts = { agentId: id, agentVersion: 1, layer: 'prompt' as const };
    await addCacheCounts(api.pool, [{ ...counts, hits: 1, misses: 1 }]);
    await addCacheCounts(api.pool, [{ ...counts, hits: 2, misses: 0 }]);
    expect((await api.get(`/v1/agents/${id}/cache`).expect(200)).body).toMatchObject({
      prompt_fingerprint: 'two',
      prompt_prefix_changes: 1,
      prompt_prefixes: [
        { fingerprint: 'two', changed: ['tools'], size_bytes: 6 },
        { fingerprint: 'one', changed: [] },
      ],
      layers: [{ layer: 'prompt', hits: 3, misses: 1, hit_rate: 0.75 }],
    });
    await api.get(`/v1/agents/${id}/cache?version=2`).expect(404);
  });
});
