import request from 'supertest';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TestApi } from './support.ts';
import { testApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

describe('authentication', () => {
  it('takes the key as bearer or x-api-key and nothing else', async () => {
    await request(api.app).get('/v1/agents').set('x-api-key', api.key).expect(200);
    await request(api.app).get('/v1/agents').set('authorization', `Bearer ${api.key}`).expect(200);
    const missing = await request(api.app).get('/v1/agents').expect(401);
    expect(missing.body).toMatchObject({
      type: 'error',
      error: { type: 'authentication_error', code: 'missing_api_key', details: { error_code: 'missing_api_key' } },
    });
    expect(missing.headers['request-id']).toBe(missing.body.request_id);
    const wrong = await request(api.app).get('/v1/agents').set('x-api-key', `${api.key}x`).expect(401);
    expect(wrong.body.error.code).toBe('invalid_api_key');
  });

  it('refuses a revoked and an expired key', async () => {
    const { createApiKey } = await import('../../db/queries/api-keys.ts');
    for (const column of ['revoked_at', 'expires_at']) {
      const { id, key } = await createApiKey(api.pool, { name: 'gone', userId: 'u', teamId: 't' });
      await request(api.app).get('/v1/agents').set('x-api-key', key).expect(200);
      await api.pool.query(`UPDATE api_keys SET ${column} = now() WHERE id = $1`, [id]);
      await request(api.app).get('/v1/agents').set('x-api-key', key).expect(401);
    }
  });
});

describe('agents', () => {
  it('makes versions on edit, keeps old ones, and refuses a stale version', async () => {
    const made = await api
      .post('/v1/agents?beta=true', {
        name: 'Coder',
        model: { id: 'claude-opus-5-5', effort: 'high', speed: null },
        system: 'Be brief.',
        tools: [
          { type: 'agent_toolset_20260401', configs: [{ name: 'bash', permission_policy: { type: 'always_ask' } }] },
          { type: 'custom', name: 'lookup', description: 'Looks up', input_schema: { type: 'object', properties: {} } },
        ],
        metadata: { team: 'core', tier: 'one' },
        mcp_servers: [],
        skills: [],
        multiagent: null,
      })
      .expect(200);
    const { id } = made.body as { id: string };
    expect(made.body).toMatchObject({
      type: 'agent',
      version: 1,
      model: { id: 'claude-opus-5-5', effort: { type: 'high' } },
      execution_identity: { type: 'service_account' },
      archived_at: null,
    });
    expect(made.body.tools[0]).toEqual({
      type: 'agent_toolset_20260401',
      default_config: { enabled: true, permission_policy: { type: 'always_allow' } },
      configs: [{ type: 'bash', name: 'bash', enabled: true, permission_policy: { type: 'always_ask' } }],
    });

    const edited = await api
      .post(`/v1/agents/${id}`, { version: 1, system: null, metadata: { tier: null, owner: 'ada' } })
      .expect(200);
    expect(edited.body).toMatchObject({
      version: 2,
      system: null,
      metadata: { team: 'core', owner: 'ada' },
      name: 'Coder',
    });
    const stale = await api.post(`/v1/agents/${id}`, { version: 1, name: 'X' }).expect(409);
    expect(stale.body.error.code).toBe('version_conflict');
    const same = await api.post(`/v1/agents/${id}`, { name: 'Coder' }).expect(200);
    expect(same.body.version).toBe(2);

    const old = await api.get(`/v1/agents/${id}?version=1`).expect(200);
    expect(old.body).toMatchObject({ version: 1, system: 'Be brief.' });
    await api.get(`/v1/agents/${id}?version=9`).expect(404);
    const versions = await api.get(`/v1/agents/${id}/versions?limit=1`).expect(200);
    expect(versions.body.data).toHaveLength(1);
    const rest = await api.get(`/v1/agents/${id}/versions?limit=1&page=${versions.body.next_page}`).expect(200);
    expect([...versions.body.data, ...rest.body.data].map((v: { version: number }) => v.version)).toEqual([2, 1]);
    expect(rest.body.next_page).toBeNull();

    await api.post(`/v1/agents/${id}/archive`).expect(200);
    const refused = await api.post(`/v1/agents/${id}`, { name: 'Y' }).expect(409);
    expect(refused.body.error.code).toBe('archived');
  });

  it('stores MCP servers and what of them may be used, with people asked unless it says otherwise', async () => {
    const servers = [{ type: 'url', name: 'shop', url: 'https://shop.example/mcp' }];
    const toolset = {
      type: 'mcp_toolset',
      mcp_server_name: 'shop',
      configs: [
        { name: 'search', permission_policy: { type: 'always_allow' } },
        { name: 'drop', enabled: false },
      ],
    };
    const made = await api
      .post('/v1/agents', { name: 'S', model: 'scripted', mcp_servers: servers, tools: [toolset] })
      .expect(200);
    expect(made.body.mcp_servers).toEqual(servers);
    expect(made.body.tools).toEqual([
      {
        type: 'mcp_toolset',
        mcp_server_name: 'shop',
        default_config: { enabled: true, permission_policy: { type: 'always_ask' } },
        configs: [
          { name: 'search', enabled: true, permission_policy: { type: 'always_allow' } },
          { name: 'drop', enabled: false, permission_policy: { type: 'always_ask' } },
        ],
      },
    ]);
    const path = `/v1/agents/${made.body.id as string}`;
    const refused = await api.post(path, { mcp_servers: [] }).expect(400);
    expect(refused.body.error.field).toBe('tools[0].mcp_server_name');
    const without = await api.post(path, { mcp_servers: null, tools: null }).expect(200);
    expect(without.body).toMatchObject({ mcp_servers: [], tools: [], version: 2 });
  });

  it('makes one version of two edits at once when both name the version', async () => {
    const { id } = (await api.post('/v1/agents', { name: 'Racer', model: 'scripted' })).body as { id: string };
    const edits = await Promise.all(
      ['a', 'b', 'c', 'd'].map((name) => api.post(`/v1/agents/${id}`, { version: 1, name })),
    );
    expect(edits.map((edit) => edit.status).toSorted((a, b) => a - b)).toEqual([200, 409, 409, 409]);
    expect((await api.get(`/v1/agents/${id}`)).body.version).toBe(2);
  });

  it('names the field it refuses', async () => {
    const cases: [object, string][] = [
      [{ name: 'A', model: 'm', nmae: 'typo' }, 'nmae'],
      [{ name: 'A' }, 'model'],
      [{ name: '', model: 'm' }, 'name'],
      [{ name: 'A', model: 'm', system: 5 }, 'system'],
      [{ name: 'A', model: { id: 'm', effort: 'huge' } }, 'model.effort'],
      [
        { name: 'A', model: 'm', mcp_servers: [{ type: 'url', name: 'x', url: 'http://x.example' }] },
        'mcp_servers[0].url',
      ],
      [
        { name: 'A', model: 'm', mcp_servers: [{ type: 'url', name: 'a__b', url: 'https://x' }] },
        'mcp_servers[0].name',
      ],
      [
        { name: 'A', model: 'm', mcp_servers: [{ type: 'url', name: 'longhaul', url: 'https://x' }] },
        'mcp_servers[0].name',
      ],
      [
        {
          name: 'A',
          model: 'm',
          mcp_servers: ['https://x', 'https://y'].map((url) => ({ type: 'url', name: 'x', url })),
        },
        'mcp_servers[1].name',
      ],
      [{ name: 'A', model: 'm', tools: [{ type: 'mcp_toolset', mcp_server_name: 'x' }] }, 'tools[0].mcp_server_name'],
      [{ name: 'A', model: 'm', skills: [{ type: 'custom', skill_id: 's' }] }, 'skills[0]'],
      [{ name: 'A', model: 'm', multiagent: { type: 'coordinator' } }, 'multiagent'],
      [{ name: 'A', model: 'm', execution_identity: { type: 'aws_role', role_arn: 'x' } }, 'execution_identity'],
      [{ name: 'A', model: 'm', tools: [{ type: 'nope' }] }, 'tools[0].type'],
      [
        {
          name: 'A',
          model: 'm',
          tools: [{ type: 'custom', name: 'a b', description: 'd', input_schema: { type: 'object' } }],
        },
        'tools[0].name',
      ],
      [
        {
          name: 'A',
          model: 'm',
          tools: [
            { type: 'agent_toolset_20260401' },
            { type: 'custom', name: 'bash', description: 'd', input_schema: { type: 'object' } },
          ],
        },
        'tools[1]',
      ],
      [{ name: 'A', model: 'm', metadata: { k: 'x'.repeat(513) } }, 'metadata.k'],
    ];
    for (const [body, field] of cases) {
      const refused = await api.post('/v1/agents', body).expect(400);
      expect(refused.body.error, JSON.stringify(body)).toMatchObject({ type: 'invalid_request_error', field });
      expect(refused.body.error.message).toContain(field);
    }
  });

  it('hides the rows of other teams', async () => {
    const { id } = (await api.post('/v1/agents', { name: 'Mine', model: 'scripted' })).body as { id: string };
    const asOther = (path: string) => request(api.app).get(path).set('x-api-key', api.otherKey);
    expect((await asOther(`/v1/agents/${id}`).expect(404)).body.error.code).toBe('not_found');
    expect((await asOther('/v1/agents').expect(200)).body.data).toEqual([]);
    await request(api.app).post(`/v1/agents/${id}`).set('x-api-key', api.otherKey).send({ name: 'Stolen' }).expect(404);
  });

  it('pages through everything once, whatever the page size, both ways in time', async () => {
    const other = await testApi();
    try {
      const ids: string[] = [];
      for (let i = 0; i < 7; i += 1) {
        ids.push(((await other.post('/v1/agents', { name: `A${i}`, model: 'm' })).body as { id: string }).id);
      }
      // Same instant for some: the id must break the tie.
      await other.pool.query(`UPDATE agents SET created_at = '2026-01-01T00:00:00.123456Z' WHERE id = ANY($1)`, [
        ids.slice(0, 4),
      ]);
      const seen: string[] = [];
      let page = '';
      do {
        const got = await other.get(`/v1/agents?limit=2${page}`).expect(200);
        seen.push(...(got.body.data as { id: string }[]).map((item) => item.id));
        page = got.body.next_page === null ? '' : `&page=${got.body.next_page as string}`;
      } while (page !== '');
      expect(seen).toHaveLength(7);
      expect(new Set(seen)).toEqual(new Set(ids));
    } finally {
      await other.close();
    }
  });
});

describe('environments', () => {
  it('applies defaults, patches, archives and deletes', async () => {
    const made = await api.post('/v1/environments', {
      name: 'Box',
      config: { type: 'cloud', networking: { type: 'limited' } },
    });
    expect(made.body).toMatchObject({
      type: 'environment',
      scope: 'organization',
      config: {
        type: 'cloud',
        networking: { type: 'limited', allowed_hosts: [], allow_mcp_servers: false, allow_package_managers: false },
        packages: { type: 'packages', pip: [] },
      },
    });
    const { id } = made.body as { id: string };
    const edited = await api.post(`/v1/environments/${id}`, {
      description: 'ours',
      config: { type: 'cloud', packages: { pip: ['numpy'] } },
    });
    expect(edited.body).toMatchObject({
      description: 'ours',
      config: { networking: { type: 'limited', allowed_hosts: [] }, packages: { pip: ['numpy'] } },
    });
    await api.post(`/v1/environments/${id}`, { config: { type: 'self_hosted' } }).expect(400);
    expect((await api.post(`/v1/environments/${id}/archive`)).body.archived_at).not.toBeNull();
    const listed = await api.get('/v1/environments').expect(200);
    expect(listed.body.data.some((item: { id: string }) => item.id === id)).toBe(false);
    expect((await api.delete(`/v1/environments/${id}`).expect(200)).body).toEqual({ id, type: 'environment_deleted' });
    await api.get(`/v1/environments/${id}`).expect(404);
  });
});
