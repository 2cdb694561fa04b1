import { createServer, get, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import fc from 'fast-check';
import request from 'supertest';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { newId } from '../../contracts/ids.ts';
import { USAGE_DIMENSIONS, type UsageDimension } from '../../contracts/usage.ts';
import type { Queryable } from '../../db/pool.ts';
import { recordLedgerEntries, type LedgerEntry } from '../../db/queries/ledger.ts';
import { exportCalls } from '../../db/queries/usage-export.ts';
import { usagePercentiles } from '../../db/queries/usage-percentiles.ts';
import { usageByGroup, usageTotals, type UsageScope } from '../../db/queries/usage-report.ts';
import { makeAgent, makeSession, testApi, type TestApi } from './support.ts';

let api: TestApi;
let sessionIds: string[];
let agentId: string;
beforeAll(async () => {
  api = await testApi();
  sessionIds = [await makeSession(api), await makeSession(api)];
  agentId = (await makeAgent(api)).agentId;
});
afterAll(() => api.close());

interface Call {
  entry: LedgerEntry;
  at: string;
}

/** A call with something in every dimension. */
function call(over: Partial<LedgerEntry> & { who?: Partial<LedgerEntry['attribution']>; at?: string } = {}): Call {
  const { who, at = '2026-03-05T10:20:30.123456Z', ...rest } = over;
  const id = newId('ledger');
  return {
    at,
    entry: {
      id,
      callKey: id,
      attribution: {
        teamId: 'team-a',
        userId: 'ada',
        keyId: 'key_1',
        sessionId: sessionIds[0] ?? null,
        rootSessionId: sessionIds[0] ?? null,
        threadId: 'th_1',
        agentId,
        agentVersion: 1,
        deploymentId: 'depl_1',
        harness: 'native',
        runtime: null,
        repo: 'acme/shop',
        labels: ['nightly'],
        trigger: 'api',
        ...who,
      },
      turn: 1,
      step: 2,
      virtualKeyId: null,
      protocol: 'messages',
      provider: 'anthropic',
      model: 'claude-opus-5',
      requestedModel: 'best',
      modelDeployment: null,
      usage: {
        inputTokens: 100,
        cacheReadTokens: 10,
        cacheWrite5mTokens: 5,
        cacheWrite1hTokens: 2,
        outputTokens: 50,
        reasoningTokens: 20,
        webSearches: 1,
      },
      costMicros: 1_000,
      usageBasis: 'reported',
      ttftMs: 100,
      latencyMs: 1_000,
      httpStatus: 200,
      error: null,
      ...rest,
    },
  };
}

async function put(calls: Call[]): Promise<void> {
  await api.pool.query('DELETE FROM ledger');
  await recordLedgerEntries(
    api.pool,
    calls.map(({ entry }) => entry),
  );
  for (const { entry, at } of calls) {
    await api.pool.query('UPDATE ledger SET created_at = $2 WHERE id = $1', [entry.id, at]);
  }
}

const RANGE = 'from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z';
interface Report {
  data: { group: Record<string, unknown>; bucket_start: string | null; calls: number; cost_micros: number }[];
  totals: Record<string, number> | null;
  next_page: string | null;
}
async function report(query: string): Promise<Report> {
  return (await api.get(`/v1/usage?${RANGE}&${query}`).expect(200)).body as Report;
}
const csv = async (query: string): Promise<string> => (await api.get(`/v1/usage?${RANGE}&${query}`).expect(200)).text;

const starts = async (bucket: string): Promise<unknown[]> =>
  (await report(`bucket=${bucket}`)).data.map((item) => [item.bucket_start, item.calls]);
const pick = <T>(...values: T[]): fc.Arbitrary<T> => fc.constantFrom(...values);

describe('usage', () => {
  it('is summed by kind of token, over the calls of the team and the time alone', async () => {
    await put([
      call(),
      call({ costMicros: null, error: 'provider_timeout', usageBasis: 'estimated' }),
      call({ who: { teamId: 'team-b' } }),
      call({ at: '2025-12-31T23:59:59.999999Z' }),
      call({ at: '2027-01-01T00:00:00Z' }),
    ]);
    const { totals, data } = await report('');
    expect(totals).toEqual({
      calls: 2,
      errors: 1,
      unpriced_calls: 1,
      estimated_calls: 1,
      input_tokens: 200,
      cache_read_tokens: 20,
      cache_write_5m_tokens: 10,
      cache_write_1h_tokens: 4,
      output_tokens: 100,
      reasoning_tokens: 40,
      web_searches: 2,
      cost_micros: 1_000,
    });
    expect(data).toMatchObject([{ bucket_start: null, group: {}, calls: 2 }]);
    const other = request(api.app).get(`/v1/usage?${RANGE}`).set('authorization', `Bearer ${api.otherKey}`);
    expect((await other.expect(200)).body.totals).toMatchObject({ calls: 1 });
    await request(api.app).get('/v1/usage').expect(401);
  });

  it('can be grouped and filtered by every dimension', async () => {
    const who = {
      userId: 'bob',
      keyId: 'key_2',
      sessionId: sessionIds[1] ?? null,
      rootSessionId: sessionIds[1] ?? null,
      threadId: 'th_2',
      agentId: 'agent_2',
      agentVersion: 12,
      deploymentId: null,
      harness: 'opencode',
      runtime: 'cma',
      repo: null,
      labels: ['weekly'],
      trigger: 'schedule',
    };
    const other = call({
      who,
      turn: 3,
      step: 11,
      protocol: 'chat',
      provider: 'openai',
      model: 'o3',
      requestedModel: 'fast',
      modelDeployment: 'eu',
    });
    await put([call(), call(), other]);
    await api.pool.query(`UPDATE ledger SET tool = 'web_fetch' WHERE id = $1`, [other.entry.id]);
    for (const name of USAGE_DIMENSIONS) {
      const { data } = await report(`group_by[]=${name}`);
      expect(
        data.map(({ calls }) => calls).toSorted((a, b) => a - b),
        name,
      ).toEqual([1, 2]);
      for (const { group, calls } of data) {
        expect(Object.keys(group)).toEqual([name]);
        const value = group[name];
        if (value === null) continue;
        const filtered = await report(`${name}=${encodeURIComponent(value as string)}`);
        expect(filtered.totals, name).toMatchObject({ calls });
      }
    }
    expect((await report('group_by[]=agent_version&sort=group')).data.map(({ group }) => group)).toEqual([
      { agent_version: 1 },
      { agent_version: 12 },
    ]);
  });

  it('counts a call with two labels in the groups of both, and once in all', async () => {
    await put([call({ who: { labels: ['a', 'b'] } }), call({ who: { labels: [] } })]);
    const { data, totals } = await report('group_by[]=label');
    expect(data.map(({ group, calls }) => [group['label'], calls])).toEqual([
      [null, 1],
      ['a', 1],
      ['b', 1],
    ]);
    expect(totals).toMatchObject({ calls: 2 });
    expect((await report('group_by[]=label&label=a')).data.map(({ group }) => group['label'])).toEqual(['a']);
  });

  it('can be cut into hours, days and months of UTC', async () => {
    await put([
      call({ at: '2026-03-05T10:20:30Z' }),
      call({ at: '2026-03-05T10:59:59.999999Z' }),
      call({ at: '2026-03-05T11:00:00Z' }),
      call({ at: '2026-03-31T23:59:59.999999Z' }),
      call({ at: '2026-04-01T00:00:00Z' }),
    ]);
    expect(await starts('month')).toEqual([
      ['2026-03-01T00:00:00Z', 4],
      ['2026-04-01T00:00:00Z', 1],
    ]);
    expect(await starts('day')).toEqual([
      ['2026-03-05T00:00:00Z', 3],
      ['2026-03-31T00:00:00Z', 1],
      ['2026-04-01T00:00:00Z', 1],
    ]);
    expect((await starts('hour')).slice(0, 2)).toEqual([
      ['2026-03-05T10:00:00Z', 2],
      ['2026-03-05T11:00:00Z', 1],
    ]);
  });

  it('adds up to the same in pages of any size, whatever it is grouped and sorted by', async () => {
    const someCalls = fc.array(
      fc.record({
        user: pick('ada', 'bob', 'Ärger', '_x'),
        repo: pick(null, 'acme/shop', 'acme/web'),
        labels: pick<string[]>([], ['a'], ['a', 'b']),
        version: pick(1, 2, 10, null),
        at: pick('2026-03-05T10:00:00Z', '2026-03-05T12:00:00Z', '2026-03-06T10:00:00Z'),
        costMicros: pick(null, 0, 5, 7_000),
      }),
      { maxLength: 20 },
    );
    const groupings = fc.subarray<UsageDimension>(['user', 'repo', 'agent_version'], { minLength: 1 });
    await fc.assert(
      fc.asyncProperty(
        someCalls,
        groupings,
        pick(undefined, 'hour' as const, 'day' as const),
        pick('group' as const, 'cost' as const, 'calls' as const),
        fc.integer({ min: 1, max: 5 }),
        async (drafts, groupBy, bucket, sort, limit) => {
          await put(
            drafts.map(({ user, repo, labels, version, at, costMicros }) =>
              call({ at, costMicros, who: { userId: user, repo, labels, agentVersion: version } }),
            ),
          );
          const scope: UsageScope = {
            teamId: 'team-a',
            from: new Date('2026-01-01'),
            to: new Date('2027-01-01'),
            filters: {},
          };
          const seen = new Map<string, number>();
          const order: number[] = [];
          let cursor: string | undefined;
          do {
            const page = await usageByGroup(api.pool, scope, { groupBy, bucket, sort }, { limit, cursor });
            expect(page.data.length).toBeLessThanOrEqual(limit);
            for (const item of page.data) {
              const name = JSON.stringify([item.bucketStart, item.group]);
              expect(seen.has(name)).toBe(false);
              seen.set(name, item.calls);
              order.push(sort === 'cost' ? item.costMicros : sort === 'calls' ? item.calls : 0);
            }
            cursor = page.nextPage ?? undefined;
          } while (cursor !== undefined);
          expect([...seen.values()].reduce((sum, calls) => sum + calls, 0)).toBe(drafts.length);
          expect(order).toEqual(order.toSorted((a, b) => b - a));
          const expected = new Set(
            drafts.map(({ user, repo, version, at }) => {
              const values: Partial<Record<UsageDimension, unknown>> = { user, repo, agent_version: version };
              const start = bucket === undefined ? null : bucket === 'hour' ? at : `${at.slice(0, 10)}T00:00:00Z`;
              return JSON.stringify([start, Object.fromEntries(groupBy.map((name) => [name, values[name]]))]);
            }),
          );
          expect(new Set(seen.keys())).toEqual(expected);
        },
      ),
      { numRuns: 40 },
    );
  }, 180_000);

  it.each([
    ['group_by[]=team', 'group_by[]'],
    ['group_by[]=user&group_by[]=user', 'group_by[]'],
    ['group_by[]=user&group_by[]=repo&group_by[]=model&group_by[]=agent&group_by[]=label', 'group_by[]'],
    ['bucket=week', 'bucket'],
    ['turn=x', 'turn'],
    ['turn=99999999999', 'turn'],
    ['team=team-b', 'team'],
    ['page=nonsense', 'page'],
    [`page=${Buffer.from('["x","y"]').toString('base64url')}`, 'page'],
    [`page=${Buffer.from('[1.5,""]').toString('base64url')}`, 'page'],
    ['format=csv&limit=5', 'page'],
    ['format=xml', 'format'],
  ])('refuses %s', async (query, field) => {
    const refused = await api.get(`/v1/usage?${RANGE}&${query}`).expect(400);
    expect(refused.body.error).toMatchObject({
      code: 'invalid_request',
      field: expect.stringContaining(field) as string,
    });
  });

  it('refuses a time that ends before it begins', async () => {
    const refused = await api.get('/v1/usage?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z').expect(400);
    expect(refused.body.error).toMatchObject({ field: 'from' });
  });
});

describe('usage as CSV', () => {
  it('has a line for every call, in order, and runs no formula of whoever named a thing', async () => {
    await put([
      call({
        who: { userId: '=HYPERLINK("http://x","y")', repo: 'acme/shop', labels: ['@a', 'b'] },
        at: '2026-03-05T10:00:01Z',
      }),
      call({ who: { userId: '-1+1', labels: [] }, model: '\t=1', at: '2026-03-05T10:00:00Z', costMicros: null }),
      call({ who: { userId: 'a "b", c' }, error: '+x', at: '2026-03-05T10:00:02Z' }),
      call({ who: { teamId: 'team-b', userId: 'secret' } }),
    ]);
    const text = await csv('format=csv');
    const lines = text.split('\r\n');
    expect(lines).toHaveLength(5);
    expect(lines[4]).toBe('');
    expect(lines[0]).toMatch(/^created_at,id,user_id,key_id,session_id,/);
    expect(lines[1]).toMatch(/^2026-03-05T10:00:00\.000000Z,call_\w+,'-1\+1,/);
    expect(lines[1]).toContain(",'\t=1,");
    expect(lines[2]).toContain(`"'=HYPERLINK(""http://x"",""y"")"`);
    expect(lines[2]).toContain(`'@a;b`);
    expect(lines[3]).toContain(`"a ""b"", c"`);
    expect(lines[3]?.endsWith(",'+x")).toBe(true);
    expect(text).not.toContain('secret');
  });

  it('comes for Accept: text/csv, too, and grouped', async () => {
    await put([call(), call({ who: { userId: 'bob' } })]);
    const answer = await api
      .get(`/v1/usage?${RANGE}&group_by[]=user&bucket=month`)
      .set('accept', 'text/csv')
      .expect(200);
    expect(answer.headers['content-type']).toBe('text/csv; charset=utf-8');
    expect(answer.headers['content-disposition']).toBe('attachment; filename="usage.csv"');
    expect(answer.text.split('\r\n').map((line) => line.split(',').slice(0, 3).join(','))).toEqual([
      'bucket_start,user,calls',
      '2026-03-01T00:00:00Z,ada,1',
      '2026-03-01T00:00:00Z,bob,1',
      '',
    ]);
    await put([]);
    expect(await csv('format=csv&group_by[]=user')).toMatch(/^user,calls,[\w,]+\r\n$/);
  });
});

const percentiles = async (query: string) =>
  (await api.get(`/v1/usage/percentiles?${RANGE}&${query}`).expect(200)).body;

describe('percentiles', () => {
  it('are of calls, turns or sessions that ended well', async () => {
    const sessionId = sessionIds[1] ?? null;
    const calls = Array.from({ length: 20 }, (_, index) =>
      call({
        turn: Math.floor(index / 10),
        costMicros: 100 * (index + 1),
        latencyMs: 10 * (index + 1),
        ttftMs: index + 1,
        who: { sessionId: index < 15 ? (sessionIds[0] ?? null) : sessionId },
      }),
    );
    await put([...calls, call({ error: 'provider_timeout', latencyMs: 1_000_000 }), call({ who: { agentId: null } })]);
    expect(await percentiles(`agent=${agentId}`)).toMatchObject({
      type: 'usage_percentiles',
      per: 'call',
      data: [
        {
          group: { agent: agentId },
          samples: 20,
          input_tokens: { p50: 117, p95: 117 },
          output_tokens: { p50: 50, p95: 50 },
          cost_micros: { p50: 1_050, p95: 1_905 },
          latency_ms: { p50: 105, p95: 191 },
          ttft_ms: { p50: 11, p95: 19 },
        },
      ],
    });
    const sessions = await percentiles(`agent=${agentId}&per=session&group_by[]=agent&group_by[]=agent_version`);
    expect(sessions.data).toMatchObject([
      {
        group: { agent: agentId, agent_version: 1 },
        samples: 2,
        input_tokens: { p50: 1_170 },
        latency_ms: { p50: 1_050 },
        ttft_ms: null,
      },
    ]);
    expect((await percentiles(`agent=${agentId}&per=turn`)).data).toMatchObject([{ samples: 3 }]);
    expect((await percentiles('')).data).toHaveLength(2);
  });

  it('make the estimate of an agent: of its version, or of all when that has too few sessions', async () => {
    const at = new Date().toISOString();
    await put([call({ at }), call({ at, who: { sessionId: sessionIds[1] ?? null }, costMicros: 3_000 })]);
    const estimate = await api.get(`/v1/agents/${agentId}/estimate`).expect(200);
    expect(estimate.body).toMatchObject({
      type: 'agent_estimate',
      agent_id: agentId,
      version: null,
      session: { samples: 2, cost_micros: { p50: 2_000, p95: 2_900 } },
      turn: { samples: 2 },
      call: { samples: 2, ttft_ms: { p50: 100 } },
    });
    const sessions = await Promise.all(Array.from({ length: 5 }, () => makeSession(api)));
    await put(sessions.map((sessionId) => call({ at, who: { sessionId } })));
    expect((await api.get(`/v1/agents/${agentId}/estimate?version=1`).expect(200)).body).toMatchObject({
      version: 1,
      session: { samples: 5 },
    });
    await put([]);
    expect((await api.get(`/v1/agents/${agentId}/estimate`).expect(200)).body).toMatchObject({
      session: { samples: 0, cost_micros: null },
    });
    const stranger = request(api.app).get(`/v1/agents/${agentId}/estimate`);
    await stranger.set('authorization', `Bearer ${api.otherKey}`).expect(404);
  });
});

/** Runs `work` on a database that only plans; the plans it made. */
async function plansOf(work: (db: Queryable) => Promise<unknown>): Promise<string> {
  let plans = '';
  const planner = {
    query: async (text: string, params: unknown[]) => {
      const plan = await api.pool.query(`EXPLAIN (FORMAT JSON) ${text}`, params);
      plans += JSON.stringify(plan.rows);
      return { rows: [] };
    },
  };
  // A plan has no rows to make an answer of.
  await work(planner as unknown as Queryable).catch(() => undefined);
  return plans;
}

/** A month; a filter looks at the whole year. */
const monthOrYear = (filters?: UsageScope['filters']): UsageScope => ({
  teamId: 'team-7',
  from: new Date(filters === undefined ? '2026-03-01' : '2026-01-01'),
  to: new Date(filters === undefined ? '2026-04-01' : '2027-01-01'),
  filters: filters ?? {},
});

const group = (filters?: UsageScope['filters']) => (db: Queryable) =>
  usageByGroup(
    db,
    monthOrYear(filters),
    { groupBy: ['user'], bucket: 'day', sort: 'cost' },
    { limit: 20, cursor: undefined },
  );

describe('a large ledger', () => {
  const ROWS = 200_000;
  beforeAll(async () => {
    await api.pool.query('DELETE FROM ledger');
    const client = await api.pool.connect();
    await client.query('SET statement_timeout = 0');
    await client.query(
      `INSERT INTO ledger (id, call_key, team_id, user_id, agent_id, agent_version, root_session_id, labels, protocol, provider,
         model, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
         cost_micros, usage_basis, latency_ms, created_at)
       SELECT 'call_' || n, 'call_' || n, 'team-' || n % 50, 'user-' || n % 97, 'agent_' || n % 31, 1, 'sesn_' || n % 9973,
         jsonb_build_array('label-' || n % 1009), 'messages', 'anthropic', 'claude-opus-5', n, 0, 0, 0, 1, 0, 1, 'reported', 1,
         timestamptz '2026-01-01' + n * interval '2 minutes'
       FROM generate_series(1, $1) AS n`,
      [ROWS],
    );
    await client.query('ANALYZE ledger');
    client.release(true);
  }, 180_000);

  it.each<[string, (db: Queryable) => Promise<unknown>, string]>([
    ['a report of a team', group(), 'ledger_by_team'],
    ['its totals', (db) => usageTotals(db, monthOrYear()), 'ledger_by_team'],
    ['an export', async (db) => exportCalls(db, monthOrYear()).next(), 'ledger_by_team'],
    ['a session tree', group({ root_session: 'sesn_5' }), 'ledger_by_root_session'],
    ['a label', group({ label: 'label-3' }), 'ledger_by_label'],
    [
      'percentiles of an agent',
      (db) => usagePercentiles(db, monthOrYear({ agent: 'agent_3' }), { groupBy: [], per: 'call', limit: 1 }),
      'ledger_by_agent',
    ],
  ])('is read by an index: %s', async (_name, work, index) => {
    const plans = await plansOf(work);
    expect(plans).toContain(index);
    expect(plans).not.toContain('Seq Scan');
  });

  it('is exported whole, and no further than its reader has taken', async () => {
    const client = await api.pool.connect();
    await client.query('SET statement_timeout = 0');
    await client.query(`UPDATE ledger SET team_id = 'team-a' WHERE team_id < 'team-30'`);
    // A late row of a test before this one may be there, too.
    const own = await client.query<{ rows: string }>(`SELECT count(*) AS rows FROM ledger WHERE team_id = 'team-a'`);
    client.release(true);
    const queries = vi.spyOn(api.pool, 'query');
    let sent: ServerResponse | undefined;
    const server = createServer((req, res) => {
      sent = res;
      api.app(req, res);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const answer = await new Promise<IncomingMessage>((resolve) => {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/usage?${RANGE}&format=csv`;
      get(url, { headers: { authorization: `Bearer ${api.key}` } }, resolve);
    });
    // Nobody reads: buffers fill up, and then the export waits.
    await vi.waitFor(() => expect(sent?.writableNeedDrain).toBe(true), { timeout: 60_000 });
    const rows = Number(own.rows[0]?.rows);
    expect(queries.mock.calls.length).toBeLessThan(rows / 2_000 - 5);
    const seen = new Set<string>();
    let lines = 0;
    for await (const line of createInterface({ input: answer })) {
      lines += 1;
      seen.add(line.split(',', 2)[1] ?? '');
    }
    expect([lines, seen.size]).toEqual([rows + 1, rows + 1]);
    await new Promise((resolve) => server.close(resolve));
  }, 180_000);
});
