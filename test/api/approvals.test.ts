import canonicalize from 'canonicalize';
import { createHash } from 'node:crypto';
import request from 'supertest';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withTransaction } from '../../db/pool.ts';
import { cancelApprovals, consumeApproval, expireApproval } from '../../db/queries/approvals.ts';
import { makeApproval, makeEffect, shownFor } from './effects.ts';
import type { TestApi } from './support.ts';
import { makeSession, testApi } from './support.ts';

let api: TestApi;
let sessionId: string;
beforeAll(async () => {
  api = await testApi();
  sessionId = await makeSession(api);
});
afterAll(() => api.close());

async function ask(options: Parameters<typeof makeApproval>[3] = {}): Promise<{ id: string; effectId: string }> {
  const effectId = await makeEffect(api.pool, sessionId, 'builtin');
  return { id: await makeApproval(api.pool, sessionId, effectId, options), effectId };
}
const decide = (id: string, body: object) => api.post(`/v1/approvals/${id}/decide`, body);
const confirmation = (effectId: string, result: 'allow' | 'deny') =>
  api.post(`/v1/sessions/${sessionId}/events`, {
    events: [{ type: 'user.tool_confirmation', tool_use_id: effectId, result }],
  });
const sha256 = (value: unknown) =>
  createHash('sha256')
    .update(canonicalize(value) ?? '')
    .digest('hex');

describe('approvals', () => {
  it('shows pending ones of the team with the digest of what is shown', async () => {
    const { id, effectId } = await ask();
    const listed = await api.get('/v1/approvals').expect(200);
    const found = (listed.body.data as { id: string; digest: string; shown: object }[]).find((item) => item.id === id);
    expect(found).toMatchObject({ state: 'pending', kind: 'effect', tool_use_id: effectId, session_id: sessionId });
    expect(found?.digest).toBe(sha256(shownFor(sessionId, effectId)));
    expect(found?.digest).toBe(sha256(found?.shown));
    const asOther = await request(api.app).get('/v1/approvals').set('x-api-key', api.otherKey).expect(200);
    expect(asOther.body.data).toEqual([]);
    await request(api.app)
      .post(`/v1/approvals/${id}/decide`)
      .set('x-api-key', api.otherKey)
      .send({ decision: 'allow' })
      .expect(404);
  });

  it('is decided once: a repeat changes nothing, another decision is refused, each has one audit row', async () => {
    const { id, effectId } = await ask();
    const first = await decide(id, { decision: 'allow' }).expect(200);
    expect(first.body).toMatchObject({ state: 'approved', decision: 'allow', decided_by: 'user:ada' });
    const again = await decide(id, { decision: 'allow' }).expect(200);
    expect(again.body.decided_at).toBe(first.body.decided_at);
    expect((await decide(id, { decision: 'deny' }).expect(409)).body.error.code).toBe('already_decided');
    const audit = await api.pool.query('SELECT actor, action, decision, digest FROM audit WHERE resource = $1', [id]);
    expect(audit.rows).toEqual([
      { actor: 'user:ada', action: 'approval.decide', decision: 'allow', digest: first.body.digest },
    ]);
    const inputs = await api.pool.query(`SELECT message FROM inputs WHERE message ->> 'approvalId' = $1`, [id]);
    expect(inputs.rows).toHaveLength(1);
    const events = await api.get(`/v1/sessions/${sessionId}/events?types[]=user.tool_confirmation&order=desc&limit=1`);
    expect(events.body.data[0]).toMatchObject({
      tool_use_id: effectId,
      result: 'allow',
      approval_id: id,
      decision: 'allow',
    });
    // Only the start of the effect uses it up, and only once.
    expect(await withTransaction(api.pool, (tx) => consumeApproval(tx, id))).toBe(true);
    expect(await withTransaction(api.pool, (tx) => consumeApproval(tx, id))).toBe(false);
    expect((await decide(id, { decision: 'allow' }).expect(200)).body.state).toBe('consumed');
  });

  it('has one winner among many deciders at once', async () => {
    const { id } = await ask();
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) => decide(id, { decision: i % 2 === 0 ? 'allow' : 'deny' })),
    );
    const kept = (await api.get(`/v1/approvals/${id}`)).body.decision as string;
    for (const [i, answer] of answers.entries()) {
      expect(answer.status).toBe((i % 2 === 0 ? 'allow' : 'deny') === kept ? 200 : 409);
    }
    const inputs = await api.pool.query(`SELECT 1 FROM inputs WHERE message ->> 'approvalId' = $1`, [id]);
    expect(inputs.rows).toHaveLength(1);
  });

  it('takes edited arguments with allow only, under a new digest, and keeps the original', async () => {
    const { id, effectId } = await ask();
    const edited = { command: 'ls build' };
    const before = (await api.get(`/v1/approvals/${id}`)).body as { digest: string };
    expect((await decide(id, { decision: 'deny', input: edited }).expect(400)).body.error.field).toBe('input');
    const done = await decide(id, { decision: 'allow', input: edited }).expect(200);
    expect(done.body.edited_input).toEqual(edited);
    expect(done.body.digest).toBe(sha256({ ...shownFor(sessionId, effectId), input: edited }));
    const audit = await api.pool.query('SELECT details FROM audit WHERE resource = $1', [id]);
    expect((audit.rows[0] as { details: object }).details).toMatchObject({
      original_digest: before.digest,
      original_input: { command: 'rm -r build' },
      edited_input: edited,
    });
    expect((await decide(id, { decision: 'allow' }).expect(409)).body.error.code).toBe('already_decided');
  });

  it('refuses edited arguments the tool could not run with, and leaves the question open', async () => {
    const { id } = await ask();
    for (const input of [{}, { command: '' }, { cmd: 'ls' }, { command: 'ls', timeout_ms: -1 }]) {
      const refused = await decide(id, { decision: 'allow', input }).expect(400);
      expect(refused.body.error).toMatchObject({ code: 'invalid_request', field: 'input' });
    }
    expect((await api.get(`/v1/approvals/${id}`)).body).toMatchObject({ state: 'pending', edited_input: null });
    await decide(id, { decision: 'allow', input: { command: 'ls', timeout_ms: 1_000 } }).expect(200);
  });

  it('leaves arguments of a tool of the harness’s own to the harness, whatever ours of that name takes', async () => {
    const effectId = await makeEffect(api.pool, sessionId, 'harness');
    const id = await makeApproval(api.pool, sessionId, effectId);
    const input = { command: 'ls build', description: 'Lists what was built' };
    const decided = await decide(id, { decision: 'allow', input }).expect(200);
    expect(decided.body).toMatchObject({ state: 'approved', edited_input: input });
  });

  it('answers a lost effect with done, retry or skip', async () => {
    const effectId = await makeEffect(api.pool, sessionId, 'builtin', 'unknown');
    const id = await makeApproval(api.pool, sessionId, effectId, { kind: 'lost_effect' });
    expect((await decide(id, { decision: 'allow' }).expect(400)).body.error.field).toBe('decision');
    expect((await decide(id, { decision: 'retry' }).expect(200)).body).toMatchObject({
      state: 'approved',
      decision: 'retry',
    });
  });

  it('a confirmation sent again never repeats a lost effect; deny skips it', async () => {
    const { id: first, effectId } = await ask();
    await confirmation(effectId, 'allow').expect(200);
    await withTransaction(api.pool, (tx) => consumeApproval(tx, first));
    const id = await makeApproval(api.pool, sessionId, effectId, { kind: 'lost_effect' });
    const refused = await confirmation(effectId, 'allow').expect(409);
    expect(refused.body.error).toMatchObject({
      code: 'no_pending_action',
      message: `the outcome of this call is unknown: decide approval ${id} with done, retry or skip`,
    });
    expect((await api.get(`/v1/approvals/${id}`)).body).toMatchObject({ state: 'pending', decision: null });
    expect((await confirmation(effectId, 'deny').expect(200)).body.data[0]).toMatchObject({ decision: 'skip' });
    expect((await api.get(`/v1/approvals/${id}`)).body).toMatchObject({ state: 'denied', decision: 'skip' });
    await confirmation(effectId, 'allow').expect(409);
  });

  it('refuses what expired or was withdrawn', async () => {
    const late = await ask({ expiresAt: new Date(Date.now() - 1_000) });
    expect((await decide(late.id, { decision: 'allow' }).expect(410)).body.error.code).toBe('approval_expired');
    const expired = await ask();
    expect(await withTransaction(api.pool, (tx) => expireApproval(tx, expired.id))).toBe(true);
    expect((await decide(expired.id, { decision: 'allow' }).expect(410)).body.error.code).toBe('approval_expired');
    const withdrawn = await ask();
    const ids = await withTransaction(api.pool, (tx) => cancelApprovals(tx, sessionId, [withdrawn.effectId]));
    expect(ids).toEqual([withdrawn.id]);
    expect((await decide(withdrawn.id, { decision: 'allow' }).expect(409)).body.error.code).toBe('no_pending_action');
  });
});

const answer = (custom_tool_use_id: string, extra: object = {}) =>
  api.post(`/v1/sessions/${sessionId}/events`, {
    events: [
      { type: 'user.custom_tool_result', custom_tool_use_id, content: [{ type: 'text', text: '42' }], ...extra },
    ],
  });

describe('custom tool results', () => {
  it('closes the waiting effect once, all or nothing with its event', async () => {
    const effectId = await makeEffect(api.pool, sessionId, 'custom');
    await answer(effectId).expect(200);
    const row = await api.pool.query('SELECT state, result, is_error FROM effects WHERE id = $1', [effectId]);
    expect(row.rows[0]).toEqual({
      state: 'succeeded',
      result: { content: [{ type: 'text', text: '42' }] },
      is_error: false,
    });
    const { rows: before } = await api.pool.query('SELECT count(*)::int AS n FROM events WHERE session_id = $1', [
      sessionId,
    ]);
    expect((await answer(effectId).expect(409)).body.error.code).toBe('no_pending_action');
    const mixed = await api.post(`/v1/sessions/${sessionId}/events`, {
      events: [
        { type: 'user.message', content: 'hi' },
        { type: 'user.custom_tool_result', custom_tool_use_id: effectId },
      ],
    });
    expect(mixed.status).toBe(409);
    const { rows: after } = await api.pool.query('SELECT count(*)::int AS n FROM events WHERE session_id = $1', [
      sessionId,
    ]);
    expect(after).toEqual(before);
  });

  it('records an error as one, and refuses calls of other sessions and other kinds', async () => {
    const failed = await makeEffect(api.pool, sessionId, 'custom');
    await answer(failed, { is_error: true }).expect(200);
    const row = await api.pool.query('SELECT state FROM effects WHERE id = $1', [failed]);
    expect(row.rows[0]).toEqual({ state: 'failed' });
    await answer('sevt_nope').expect(404);
    expect((await answer(await makeEffect(api.pool, sessionId, 'builtin')).expect(409)).body.error.code).toBe(
      'no_pending_action',
    );
    const elsewhere = await makeEffect(api.pool, await makeSession(api), 'custom');
    await answer(elsewhere).expect(404);
  });

  it('names event types it does not take', async () => {
    for (const type of ['user.define_outcome', 'user.tool_result', 'system.message', 'agent.message']) {
      const refused = await api.post(`/v1/sessions/${sessionId}/events`, { events: [{ type }] }).expect(400);
      expect(refused.body.error.message).toContain(type);
      expect(refused.body.error.field).toBe('events[0].type');
    }
  });
});
