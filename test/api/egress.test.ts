import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { insertEgressRequests } from '../../db/queries/egress-requests.ts';
import { deleteOldEgressRequests, deleteOldProgramRequests } from '../../db/queries/retention.ts';
import { testApi, type TestApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

/** What a sandbox of an E2B program asked, as the broker writes it: without a session. */
async function asked(sandboxId: string, hosts: string[], at = new Date()): Promise<void> {
  const rows = hosts.map((host, index) => ({
    id: newId('egressRequest'),
    sandboxId,
    seq: index + 1,
    sessionId: null,
    teamId: 'team-a',
    state: 'completed' as const,
    decision: 'allow' as const,
    rule: 'sandbox',
    code: null,
    method: 'GET',
    host,
    port: 443,
    isTls: true,
    path: '/',
    status: 200,
    bytesOut: 1,
    bytesIn: 2,
    durationMs: 3,
    credentials: [],
    approvalId: null,
    error: null,
    count: 1,
    createdAt: at.toISOString(),
    endedAt: at.toISOString(),
  }));
  await insertEgressRequests(api.pool, rows);
}

const list = async (sandboxId: string, query = ''): Promise<{ host: string; session_id: string | null }[]> =>
  (await api.get(`/v1/sandboxes/${sandboxId}/egress${query}`).expect(200)).body.data;

describe('what a sandbox without a session asked of the network', () => {
  it('is shown to its team, filtered and page by page, and to no other', async () => {
    const sandboxId = newId('sandbox');
    await asked(sandboxId, ['a.test', 'b.test', 'c.test']);
    await asked(newId('sandbox'), ['elsewhere.test']);
    const all = await list(sandboxId, '?order=asc');
    expect(new Set(all.map(({ host }) => host))).toEqual(new Set(['a.test', 'b.test', 'c.test']));
    expect(all.every(({ session_id }) => session_id === null)).toBe(true);
    expect((await list(sandboxId, '?host=b.test')).map(({ host }) => host)).toEqual(['b.test']);
    const first = await api.get(`/v1/sandboxes/${sandboxId}/egress?limit=2`).expect(200);
    const rest = await list(sandboxId, `?limit=2&page=${encodeURIComponent(first.body.next_page)}`);
    const paged = [...first.body.data, ...rest].map(({ host }: { host: string }) => host);
    expect(new Set(paged)).toEqual(new Set(['a.test', 'b.test', 'c.test']));
    expect(paged).toHaveLength(3);
    const other = `Bearer ${api.otherKey}`;
    await api.get(`/v1/sandboxes/${sandboxId}/egress`).set('authorization', other).expect(404);
    await api.get(`/v1/sandboxes/${newId('sandbox')}/egress`).expect(404);
    await api.get(`/v1/sandboxes/${sandboxId}/egress?sandbox_id=x`).expect(400);
  });

  it('is removed once it is old and the sandbox is gone, never while it runs', async () => {
    const old = new Date(Date.now() - LIMITS.egressAuditKeptMs - 60_000);
    const [gone, running, young] = [newId('sandbox'), newId('sandbox'), newId('sandbox')];
    await api.pool.query(
      `INSERT INTO e2b_sandboxes (id, team_id, created_by, template, metadata, state, keep_memory, on_timeout, auto_resume,
         network, cpus, memory_bytes, disk_bytes, expires_at, egress)
       VALUES ($1, 'team-a', 'ada', 'base', '{}', 'running', false, 'kill', false, '{}', 1, 1, 1, now(), '{}')`,
      [running],
    );
    await asked(gone, ['a.test', 'b.test', 'c.test'], old);
    await asked(running, ['a.test'], old);
    await asked(young, ['a.test']);
    expect(await deleteOldEgressRequests(api.pool, 2)).toBe(0);
    expect(await deleteOldProgramRequests(api.pool, 2)).toBe(3);
    await api.get(`/v1/sandboxes/${gone}/egress`).expect(404);
    expect(await list(running)).toHaveLength(1);
    expect(await list(young)).toHaveLength(1);
  });
});
