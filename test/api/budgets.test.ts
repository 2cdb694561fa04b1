import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { OPERATOR_TEAM_ID } from '../../contracts/key-scopes.ts';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { insertBudgetEvent } from '../../db/queries/budget-events.ts';
import { changeWindows, ensureWindows, insertOwner, leaseSlices } from '../../db/queries/budget-slices.ts';
import type { TestApi } from './support.ts';
import { makeSession, testApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi({ temporalAddress: '127.0.0.1:1' });
  api.services.delivery.deliver = () => Promise.resolve();
});
afterAll(() => api.close());

const usd = (amount: string) => ({ amount, currency: 'USD' });

describe('budgets', () => {
  it('are made, shown, changed and archived', async () => {
    const made = await api
      .post('/v1/budgets', {
        name: 'repo',
        scope: { type: 'repo', id: 'acme/shop' },
        period: 'month',
        hard_limit: usd('500'),
        soft_limit: usd('300'),
        thresholds: [80, 50, 80],
        degrade_to: { model: 'claude-haiku-4-5' },
      })
      .expect(200);
    expect(made.body).toMatchObject({
      type: 'budget',
      scope: { type: 'repo', id: 'acme/shop' },
      hard_limit: usd('500'),
      soft_limit: usd('300'),
      thresholds: [50, 80],
      degrade_to: { model: 'claude-haiku-4-5', at_percent: 80 },
      managed: false,
      window: {
        key: new Date().toISOString().slice(0, 7),
        spent_micros: 0,
        reserved_micros: 0,
        remaining_micros: 5_000_000,
      },
      archived_at: null,
    });
    const id = made.body.id as string;
    expect((await api.get(`/v1/budgets/${id}`).expect(200)).body).toEqual(made.body);
    const changed = await api
      .post(`/v1/budgets/${id}`, { hard_limit: usd('900'), soft_limit: null, degrade_to: null })
      .expect(200);
    expect(changed.body).toMatchObject({ hard_limit: usd('900'), soft_limit: null, degrade_to: null, name: 'repo' });
    const none = await api.post(`/v1/budgets/${id}`, { hard_limit: null }).expect(400);
    expect(none.body.error).toMatchObject({ code: 'invalid_request', field: 'hard_limit' });
    expect((await api.get('/v1/budgets?scope_type=repo').expect(200)).body.data).toHaveLength(1);
    expect((await api.post(`/v1/budgets/${id}/archive`).expect(200)).body.archived_at).not.toBeNull();
    await api.post(`/v1/budgets/${id}/archive`).expect(200);
    expect((await api.post(`/v1/budgets/${id}`, { name: 'x' }).expect(409)).body.error.code).toBe('archived');
    expect((await api.get('/v1/budgets?scope_type=repo').expect(200)).body.data).toEqual([]);
    const listed = await api.get('/v1/budgets?scope_type=repo&include_archived=true').expect(200);
    expect(listed.body.data).toHaveLength(1);
    const audit = await api.pool.query('SELECT action FROM audit WHERE resource = $1 ORDER BY seq', [id]);
    expect(audit.rows).toEqual(['create', 'update', 'archive'].map((verb) => ({ action: `budget.${verb}` })));
  });

  it.each([
    [{ scope: { type: 'repo' } }, 'scope.id'],
    [{ scope: { type: 'team', id: 'team-b' } }, 'scope.id'],
    [{ scope: { type: 'org', id: 'x' } }, 'scope.id'],
    [{ scope: { type: 'planet', id: 'x' } }, 'scope.type'],
    [{ hard_limit: null }, 'hard_limit'],
    [{ hard_limit: usd('0') }, 'hard_limit.amount'],
    [{ hard_limit: usd('1.5') }, 'hard_limit.amount'],
    [{ thresholds: [0] }, 'thresholds[0]'],
    [{ thresholds: [101] }, 'thresholds[0]'],
    [{ degrade_to: { model: '' } }, 'degrade_to.model'],
    [{ period: 'call', hard_limit: null, soft_limit: usd('1') }, 'soft_limit'],
    [{ period: 'year' }, 'period'],
    [{ name: '' }, 'name'],
  ])('refuse %j', async (wrong, field) => {
    const body = { name: 'b', scope: { type: 'team' }, period: 'day', hard_limit: usd('100'), ...wrong };
    const refused = await api.post('/v1/budgets', body).expect(400);
    expect(refused.body.error.field).toBe(field);
  });

  it('show what is spent, held and left, and what was told of them', async () => {
    const made = await api
      .post('/v1/budgets', { name: 'all', scope: { type: 'team' }, period: 'total', hard_limit: usd('1') })
      .expect(200);
    const window = { budgetId: made.body.id as string, windowKey: 'total' };
    await ensureWindows(api.pool, [window, window]);
    await insertOwner(api.pool, 'me', 60_000);
    // A need is met whole; what comes on top is a quarter of what would be left.
    const [first] = await leaseSlices(api.pool, 'me', [{ ...window, needMicros: 4_000, extraMicros: 100_000 }]);
    expect(first).toMatchObject({ grantedMicros: 5_500, spentMicros: 0, reservedMicros: 5_500 });
    const [second] = await leaseSlices(api.pool, 'me', [{ ...window, needMicros: 50_000, extraMicros: 0 }]);
    expect(second).toMatchObject({ grantedMicros: 4_500, reservedMicros: 10_000 });
    await changeWindows(api.pool, 'me', [{ ...window, spentMicros: 3_000, releasedMicros: 7_000 }]);
    // Of an owner that holds nothing, nothing comes back.
    await changeWindows(api.pool, 'somebody else', [{ ...window, spentMicros: 500, releasedMicros: 1_000 }]);
    expect((await api.get(`/v1/budgets/${window.budgetId}`)).body.window).toEqual({
      key: 'total',
      spent_micros: 3_500,
      reserved_micros: 3_000,
      remaining_micros: 3_500,
    });
    for (const percent of [50, 80, 50]) {
      await insertBudgetEvent(api.pool, {
        ...window,
        kind: 'threshold',
        percent,
        limitMicros: 10_000,
        spentMicros: 9_000,
      });
    }
    const page = await api.get(`/v1/budgets/${window.budgetId}/events?limit=1`).expect(200);
    expect(page.body.data).toMatchObject([{ type: 'budget_event', kind: 'threshold', percent: 80, window: 'total' }]);
    const rest = await api.get(`/v1/budgets/${window.budgetId}/events?limit=1&page=${page.body.next_page}`).expect(200);
    expect(rest.body).toMatchObject({ data: [{ percent: 50 }], next_page: null });
  });

  it('are a team’s own', async () => {
    const made = await api
      .post('/v1/budgets', { name: 'mine', scope: { type: 'label', id: 'x' }, period: 'day', hard_limit: usd('1') })
      .expect(200);
    const path = `/v1/budgets/${made.body.id}`;
    for (const request of [
      api.get(path),
      api.post(path, { name: 'stolen' }),
      api.post(`${path}/archive`),
      api.get(`${path}/events`),
    ]) {
      await request.set('authorization', `Bearer ${api.otherKey}`).expect(404);
    }
    const all = { name: 'all', scope: { type: 'org' }, period: 'month', hard_limit: usd('100000') };
    const { key } = await createApiKey(api.pool, { name: 'op', userId: 'op', teamId: OPERATOR_TEAM_ID });
    const [operator, other] = [`Bearer ${key}`, `Bearer ${api.otherKey}`];
    const refused = await api.post('/v1/budgets', all).expect(403);
    expect(refused.body.error).toMatchObject({ code: 'forbidden', field: 'scope' });
    const ours = await api.post('/v1/budgets', all).set('authorization', operator).expect(200);
    const org = `/v1/budgets/${ours.body.id}`;
    await api.get(org).set('authorization', other).expect(200);
    await api.post(org, { name: 'stolen' }).set('authorization', other).expect(403);
    await api.post(`${org}/archive`).set('authorization', other).expect(403);
    await api.post(`${org}/archive`).set('authorization', operator).expect(200);
    const theirs = await api.get('/v1/budgets').set('authorization', `Bearer ${api.otherKey}`).expect(200);
    expect(theirs.body.data).toEqual([]);
  });

  it('of sessions follow the session, and are changed with it', async () => {
    const limit = (amount: string) => ({ type: 'limit', max_list_cost: usd(amount) });
    const id = await makeSession(api, { budget: limit('100') });
    const find = async () =>
      (await api.get(`/v1/budgets?scope_id=${id}&include_archived=true`).expect(200)).body.data[0];
    const pool = await find();
    expect(pool).toMatchObject({
      managed: true,
      scope: { type: 'root_session', id },
      period: 'total',
      hard_limit: usd('100'),
    });
    expect((await api.post(`/v1/budgets/${pool.id}`, { name: 'x' }).expect(400)).body.error.field).toBe('budget_id');
    await api.post(`/v1/budgets/${pool.id}/archive`).expect(400);
    await api.post(`/v1/sessions/${id}`, { budget: limit('250') }).expect(200);
    expect(await find()).toMatchObject({ id: pool.id, hard_limit: usd('250') });
    // Also what its sub-sessions have spent cannot be taken back.
    await ensureWindows(api.pool, [{ budgetId: pool.id, windowKey: 'total' }]);
    await changeWindows(api.pool, '', [
      { budgetId: pool.id, windowKey: 'total', spentMicros: 2_000_000, releasedMicros: 0 },
    ]);
    const refused = await api.post(`/v1/sessions/${id}`, { budget: limit('200') }).expect(400);
    expect(refused.body.error.code).toBe('budget_not_raised');
    await api.post(`/v1/sessions/${id}`, { budget: null }).expect(200);
    expect((await find()).archived_at).not.toBeNull();
  });
});
