import request from 'supertest';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KeyCreatedResource } from '../../contracts/keys.ts';
import type { TestApi } from './support.ts';
import { testApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

async function make(body: object = {}): Promise<KeyCreatedResource> {
  return (await api.post('/v1/keys', { name: 'ci', ...body }).expect(200)).body as KeyCreatedResource;
}

function asKey(key: string | null) {
  return (path: string): request.Test =>
    request(api.app)
      .get(path)
      .set('x-api-key', key ?? '');
}

function cents(amount: string): object {
  return { type: 'limit', max_list_cost: { amount, currency: 'USD' } };
}

describe('keys', () => {
  it('shows a new key once and stores only its hash', async () => {
    const made = await make({ allowed_models: ['claude-*'], max_parallel: 3, expires_at: '2099-01-01T00:00:00Z' });
    expect(made).toMatchObject({
      type: 'api_key',
      name: 'ci',
      user_id: 'ada',
      scopes: ['api', 'gateway'],
      allowed_models: ['claude-*'],
      max_parallel: 3,
      expires_at: '2099-01-01T00:00:00.000Z',
      revoked_at: null,
    });
    await asKey(made.key)('/v1/agents').expect(200);
    for (const path of [`/v1/keys/${made.id}`, '/v1/keys']) {
      expect(JSON.stringify((await api.get(path).expect(200)).body)).not.toContain(made.key);
    }
    for (const table of ['api_keys', 'idempotency_keys', 'audit', 'events']) {
      const { rows } = await api.pool.query(`SELECT * FROM ${table} AS t WHERE t::text LIKE '%' || $1 || '%'`, [
        made.key,
      ]);
      expect(rows).toEqual([]);
    }
  });

  it('does not show it again to a repeat of the request', async () => {
    const send = () => api.post('/v1/keys', { name: 'twice' }).set('idempotency-key', 'make-key').expect(200);
    const first = (await send()).body as KeyCreatedResource;
    const again = (await send()).body as KeyCreatedResource;
    expect(first.key).toMatch(/^lhk_/);
    expect(again).toEqual({ ...first, key: null });
    const { rows } = await api.pool.query('SELECT response::text FROM idempotency_keys');
    expect(JSON.stringify(rows)).not.toContain(first.key);
  });

  it('changes what is given, clears what is null, and tells the audit log', async () => {
    const made = await make({ allowed_models: ['a'], max_parallel: 2 });
    const changed = await api.post(`/v1/keys/${made.id}`, { name: 'other', max_parallel: null }).expect(200);
    expect(changed.body).toMatchObject({ name: 'other', allowed_models: ['a'], max_parallel: null });
    const { rows } = await api.pool.query('SELECT action, actor FROM audit WHERE resource = $1 ORDER BY action', [
      made.id,
    ]);
    expect(rows).toEqual([
      { action: 'api_key.create', actor: 'user:ada' },
      { action: 'api_key.update', actor: 'user:ada' },
    ]);
  });

  it('has a pool of its own behind its budget', async () => {
    const made = await make({ budget: cents('250') });
    expect(made).toMatchObject({ budget: cents('250'), spent_micros: 0 });
    const pools = async () => {
      const { body } = await api.get(`/v1/budgets?scope_type=key&scope_id=${made.id}`).expect(200);
      return (body as { data: { id: string; managed: boolean; hard_limit: object }[] }).data;
    };
    const [pool] = await pools();
    expect(pool).toMatchObject({ managed: true, period: 'total', hard_limit: { amount: '250' } });
    // It is changed where it was made.
    const refused = await api.post(`/v1/budgets/${pool?.id}`, { name: 'x' }).expect(400);
    expect((refused.body as { error: { message: string } }).error.message).toContain('the key');
    await api.post(`/v1/keys/${made.id}`, { budget: cents('300') }).expect(200);
    expect(await pools()).toMatchObject([{ id: pool?.id, hard_limit: { amount: '300' } }]);
    expect((await api.post(`/v1/keys/${made.id}`, { budget: null }).expect(200)).body).toMatchObject({ budget: null });
    expect(await pools()).toEqual([]);
  });

  it('ends a key for good', async () => {
    const made = await make();
    const revoked = await api.post(`/v1/keys/${made.id}/revoke`).expect(200);
    expect((revoked.body as KeyCreatedResource).revoked_at).not.toBeNull();
    expect((await api.post(`/v1/keys/${made.id}/revoke`).expect(200)).body).toEqual(revoked.body);
    await asKey(made.key)('/v1/agents').expect(401);
    await api.post(`/v1/keys/${made.id}`, { name: 'x' }).expect(409);
    const ids = async (query: string): Promise<string[]> =>
      ((await api.get(`/v1/keys${query}`)).body as { data: { id: string }[] }).data.map(({ id }) => id);
    expect(await ids('')).not.toContain(made.id);
    expect(await ids('?include_revoked=true')).toContain(made.id);
  });

  it('lets a key with limits change nothing that limits it, only end itself', async () => {
    const budget = { type: 'limit', max_list_cost: { amount: '1', currency: 'USD' } };
    const limits = [{ allowed_models: ['a'] }, { max_parallel: 1 }, { expires_at: '2099-01-01T00:00:00Z' }, { budget }];
    for (const limit of [...limits, { scopes: ['api'] }]) {
      const made = await make(limit);
      const send = (path: string, body: object) =>
        request(api.app)
          .post(path)
          .set('x-api-key', made.key ?? '')
          .send(body);
      const other = await make();
      const pool = { name: 'b', scope: { type: 'team' }, period: 'month', hard_limit: budget.max_list_cost };
      const { id: poolId } = (await api.post('/v1/budgets', pool).expect(200)).body as { id: string };
      const price = { model: 'a', usd_per_million_tokens: { input: '0', output: '0' } };
      for (const [path, body] of [
        ['/v1/keys', { name: 'free' }],
        [`/v1/keys/${made.id}`, { allowed_models: null }],
        [`/v1/keys/${other.id}/revoke`, {}],
        // What the calls of a budget cost, and what other pools there are.
        ['/v1/prices', price],
        ['/v1/prices/import', { litellm: {} }],
        ['/v1/budgets', pool],
        [`/v1/budgets/${poolId}`, { hard_limit: { amount: '999999', currency: 'USD' } }],
        [`/v1/budgets/${poolId}/archive`, {}],
      ] as const) {
        expect((await send(path, body).expect(403)).body).toMatchObject({ error: { code: 'forbidden' } });
      }
      await send(`/v1/keys/${made.id}/revoke`, {}).expect(200);
    }
  });

  it('lets a key whose calls are limited start none that are not', async () => {
    const budget = { type: 'limit', max_list_cost: { amount: '1', currency: 'USD' } };
    for (const limit of [{ allowed_models: ['a'] }, { budget }]) {
      const made = await make(limit);
      for (const [path, body] of [
        ['/v1/sessions', { agent: 'agent_x', environment_id: 'env_x' }],
        ['/v1/sessions/sesn_x/events', { events: [{ type: 'user.message', content: 'go' }] }],
        ['/v1/deployments/depl_x/run', {}],
        ['/v1/deployments/depl_x/unpause', {}],
      ] as const) {
        const sent = request(api.app)
          .post(path)
          .set('x-api-key', made.key ?? '');
        expect((await sent.send(body).expect(403)).body).toMatchObject({ error: { code: 'forbidden' } });
      }
    }
    // An expiry limits no call: such a key of CI works as long as it lives.
    const ci = await make({ expires_at: '2099-01-01T00:00:00Z' });
    const sent = request(api.app)
      .post('/v1/sessions')
      .set('x-api-key', ci.key ?? '');
    await sent.send({ agent: 'agent_x', environment_id: 'env_x' }).expect(404);
  });

  it('keeps a key for model calls out of the API', async () => {
    const made = await make({ scopes: ['gateway'] });
    expect((await asKey(made.key)('/v1/agents').expect(403)).body).toMatchObject({ error: { code: 'forbidden' } });
  });

  it('belongs to its team', async () => {
    const made = await make();
    const other = (path: string): request.Test => asKey(api.otherKey)(path);
    await other(`/v1/keys/${made.id}`).expect(404);
    expect(JSON.stringify((await other('/v1/keys').expect(200)).body)).not.toContain(made.id);
    await request(api.app).post(`/v1/keys/${made.id}/revoke`).set('x-api-key', api.otherKey).expect(404);
    await asKey(made.key)('/v1/agents').expect(200);
  });

  it.each([
    [{}, 'name'],
    [{ name: 'x', scopes: [] }, 'scopes'],
    [{ name: 'x', scopes: ['root'] }, 'scopes[0]'],
    [{ name: 'x', allowed_models: [] }, 'allowed_models'],
    [{ name: 'x', max_parallel: 0 }, 'max_parallel'],
    [{ name: 'x', expires_at: '2001-01-01T00:00:00Z' }, 'expires_at'],
    [{ name: 'x', user_id: 'root' }, 'user_id'],
  ])('refuses %j, naming %s', async (body, field) => {
    const refused = await api.post('/v1/keys', body).expect(400);
    expect((refused.body as { error: { field: string } }).error.field).toBe(field);
  });
});
