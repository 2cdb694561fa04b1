import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withTransaction } from '../../db/pool.ts';
import { expireEgressApprovals } from '../../db/queries/egress-approvals.ts';
import { writeSessionEnd } from '../../db/queries/session-end.ts';
import type { Denied } from '../../egress/decision.ts';
import type { TestApi } from '../api/support.ts';
import { testApi } from '../api/support.ts';
import type { PolicyBed } from './support.ts';
import { head, NEVER, policyBed } from './support.ts';

let bed: PolicyBed;
let api: TestApi;
beforeAll(async () => {
  api = await testApi();
  bed = await policyBed({ databaseUrl: api.databaseUrl });
}, 120_000);
afterAll(async () => {
  await bed.close();
  await api.close();
});

const ASKING = { type: 'limited', unmatched: 'ask' };

async function refused(sessionId: string, url = 'https://new.test/a?b'): Promise<Denied> {
  const engine = await bed.open(sessionId);
  const decision = await engine.request(head(url), NEVER);
  if (decision.action === 'allow') throw new Error('it was allowed');
  return decision;
}

const approvalIn = (message: string): string => /appr_\w+/.exec(message)?.[0] ?? '';
const decide = (id: string, decision: string) => api.post(`/v1/approvals/${id}/decide`, { decision });

describe('questions about the network', () => {
  it('are asked once, answered like those about tools, and open the host for a while', async () => {
    const sessionId = await bed.session(ASKING);
    const first = await refused(sessionId);
    expect(first).toMatchObject({ status: 403, code: 'waiting_for_approval' });
    const id = approvalIn(first.message);
    expect(approvalIn((await refused(sessionId)).message)).toBe(id);
    const pending = await api.get(`/v1/approvals?session_id=${sessionId}`).expect(200);
    expect(pending.body.data).toMatchObject([
      {
        id,
        kind: 'egress',
        tool_use_id: null,
        state: 'pending',
        shown: { tool: 'network', preview: 'GET https://new.test:443/a', hosts_touched: ['new.test'] },
      },
    ]);
    const session = await api.get(`/v1/sessions/${sessionId}`).expect(200);
    expect(session.body).toMatchObject({
      status: 'idle',
      attention: { pending_approval_ids: [id], security_events: 0 },
    });

    // A broker that starts anew knows as much as the one before.
    await bed.restart();
    expect(approvalIn((await refused(sessionId)).message)).toBe(id);
    const done = await decide(id, 'allow').expect(200);
    expect(done.body).toMatchObject({
      state: 'consumed',
      decision: 'allow',
      decided_by: expect.stringContaining('ada'),
    });
    const engine = await bed.open(sessionId);
    expect((await engine.request(head('https://new.test/other'), NEVER)).action).toBe('allow');
    expect(await refused(sessionId, 'https://else.test/')).toMatchObject({ code: 'waiting_for_approval' });
    await decide(id, 'allow').expect(200);
    await decide(id, 'deny').expect(409);

    await bed.pool.query(`UPDATE egress_grants SET expires_at = now() - interval '1 second' WHERE approval_id = $1`, [
      id,
    ]);
    await bed.restart();
    expect(approvalIn((await refused(sessionId)).message)).not.toBe(id);
    const log = await api.get(`/v1/sessions/${sessionId}/events?limit=100`).expect(200);
    const types = (log.body.data as { type: string; kind?: string }[]).map(({ type, kind }) => `${type} ${kind ?? ''}`);
    expect(types).toEqual([
      'session.approval_requested egress',
      'session.approval_decided egress',
      'session.approval_requested egress',
      'session.approval_requested egress',
    ]);
  });

  it('a request that is held goes through when somebody agrees', async () => {
    await bed.restart({ holdMs: 20_000 });
    const sessionId = await bed.session(ASKING);
    const engine = await bed.open(sessionId);
    const held = engine.request(head('https://new.test/'), NEVER);
    const pending = async (): Promise<string[]> => {
      const { body } = await api.get(`/v1/approvals?session_id=${sessionId}`).expect(200);
      return (body.data as { id: string }[]).map(({ id }) => id);
    };
    await expect.poll(pending, { timeout: 20_000 }).toHaveLength(1);
    await decide((await pending())[0] ?? '', 'allow').expect(200);
    expect((await held).action).toBe('allow');
    await bed.restart();
  });

  it('a no holds for a while, and nobody is asked again', async () => {
    const sessionId = await bed.session(ASKING);
    const id = approvalIn((await refused(sessionId)).message);
    await api.post(`/v1/approvals/${id}/decide`, { decision: 'deny', input: { host: 'x' } }).expect(400);
    await api.post(`/v1/approvals/${id}/decide`, { decision: 'retry' }).expect(400);
    await decide(id, 'deny').expect(200);
    expect(await refused(sessionId)).toMatchObject({ code: 'denied_by_person' });
    expect((await api.get(`/v1/approvals?session_id=${sessionId}`)).body.data).toEqual([]);
  });

  it('are about what the rule says, each on its own', async () => {
    const sessionId = await bed.session({
      type: 'limited',
      allowed_hosts: ['api.test'],
      rules: [{ host: 'api.test', methods: ['POST'], action: 'ask' }],
    });
    const engine = await bed.open(sessionId);
    expect((await engine.request(head('https://api.test/'), NEVER)).action).toBe('allow');
    const asked = await engine.request(head('https://api.test/', { method: 'POST' }), NEVER);
    if (asked.action === 'allow') throw new Error('it was allowed');
    await decide(approvalIn(asked.message), 'allow').expect(200);
    expect((await engine.request(head('https://api.test/x', { method: 'POST' }), NEVER)).action).toBe('allow');
  });

  it('run out, end with the session, and are not asked by the thousand', async () => {
    const sessionId = await bed.session(ASKING);
    const engine = await bed.open(sessionId);
    const codes = new Set<string>();
    for (let count = 0; count < 21; count += 1) {
      const decision = await engine.request(head(`https://host-${count}.test/`), NEVER);
      if (decision.action === 'deny') codes.add(decision.code);
    }
    expect([...codes]).toEqual(['waiting_for_approval', 'too_many_questions']);
    await bed.pool.query(
      `UPDATE approvals SET expires_at = now() - interval '1 second' WHERE session_id = $1 AND subject = 'host-0.test:443'`,
      [sessionId],
    );
    expect(await expireEgressApprovals(bed.pool, 100)).toBe(1);
    await withTransaction(bed.pool, (tx) => writeSessionEnd(tx, sessionId, 'archived'));
    const { rows } = await bed.pool.query(
      'SELECT state, count(*)::int FROM approvals WHERE session_id = $1 GROUP BY state ORDER BY state',
      [sessionId],
    );
    expect(rows).toEqual([
      { state: 'cancelled', count: 19 },
      { state: 'expired', count: 1 },
    ]);
    expect(await refused(sessionId)).toMatchObject({ code: expect.stringMatching(/session_over/) });
  });

  it('are those of their team only', async () => {
    const sessionId = await bed.session(ASKING, 'team-b');
    const id = approvalIn((await refused(sessionId)).message);
    await decide(id, 'allow').expect(404);
  });
});

describe('what the api shows', () => {
  it('pages of the audit with filters, in the order in which requests were made', async () => {
    const sessionId = await bed.session({ type: 'limited', allowed_hosts: ['a.test'] });
    const engine = await bed.open(sessionId);
    for (let count = 0; count < 5; count += 1) {
      const decision = await engine.request(head(`https://a.test/${count}?secret=1`), NEVER);
      if (decision.action === 'allow') decision.record({ status: 200, bytesIn: 3, bytesOut: 2, durationMs: 1 });
    }
    await engine.request(head('https://b.test/'), NEVER);
    await bed.restart();
    const paths: string[] = [];
    for (let page = ''; ;) {
      const { body } = await api
        .get(`/v1/sessions/${sessionId}/egress?order=asc&limit=2&host=a.test${page}`)
        .expect(200);
      for (const item of body.data as { path: string }[]) paths.push(item.path);
      if (body.next_page === null) break;
      page = `&page=${body.next_page as string}`;
    }
    expect(paths).toEqual(['/0', '/1', '/2', '/3', '/4']);
    const refusals = await api.get(`/v1/sessions/${sessionId}/egress?decision=deny`).expect(200);
    expect(refusals.body.data).toMatchObject([{ seq: 6, host: 'b.test', code: 'host_not_allowed', state: 'denied' }]);
    await api.get(`/v1/sessions/${sessionId}/egress?state=odd`).expect(400);
    const other = await api.get(`/v1/sessions/${await bed.session(undefined, 'team-b')}/egress`);
    expect(other.status).toBe(404);
  });

  it('security events of the team', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder } = await bed.credential(sessionId, { hosts: ['a.test'] });
    await refused(sessionId, `https://evil.test/?x=${placeholder}`);
    const { body } = await api.get(`/v1/security-events?session_id=${sessionId}`).expect(200);
    expect(body.data).toMatchObject([
      { type: 'security_event', kind: 'placeholder_misused', session_id: sessionId, host: 'evil.test' },
    ]);
    expect((await api.get(`/v1/sessions/${sessionId}`)).body.attention).toMatchObject({ security_events: 1 });
    expect((await api.get('/v1/security-events?kind=host_mismatch')).body.data).toEqual([]);
  });

  it('rules of the team, which hold at once', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const engine = await bed.open(sessionId);
    expect((await engine.request(head('https://x.bad.test/'), NEVER)).action).toBe('allow');
    const rules = [{ host: '*.BAD.test', action: 'deny' }];
    const set = await api.post('/v1/egress-policy', { rules }).expect(200);
    expect(set.body.rules).toEqual([{ host: '*.bad.test', methods: null, paths: null, action: 'deny' }]);
    expect((await api.get('/v1/egress-policy')).body.rules).toEqual(set.body.rules);
    await expect
      .poll(async () => (await engine.request(head('https://x.bad.test/'), NEVER)).action, { timeout: 20_000 })
      .toBe('deny');
    const bad = await api.post('/v1/egress-policy', { rules: [{ host: '*', action: 'deny' }] }).expect(400);
    expect(bad.body.error.field).toBe('rules[0].host');
    await api.post('/v1/egress-policy', { rules: [] }).expect(200);
  });
});
