import { afterAll, beforeAll, expect, it } from 'vitest';
import { withTransaction } from '../../db/pool.ts';
import { deleteOldResponses, lockIdempotencyKey } from '../../db/queries/idempotency.ts';
import { deleteOldModelCalls } from '../../db/queries/retention.ts';
import type { TestApi } from './support.ts';
import { makeSession, testApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

it('gives the first answer again and does the work once', async () => {
  const id = await makeSession(api);
  const send = (text: string) =>
    api
      .post(`/v1/sessions/${id}/events`, { events: [{ type: 'user.message', content: text }] })
      .set('idempotency-key', 'k-1');
  const first = await send('hello').expect(200);
  const second = await send('hello').expect(200);
  expect(second.body).toEqual(first.body);
  expect(second.headers['idempotent-replayed']).toBe('true');
  expect((await send('other').expect(409)).body.error.code).toBe('idempotency_conflict');
  const elsewhere = await api.post('/v1/environments', { name: 'x' }).set('idempotency-key', 'k-1').expect(409);
  expect(elsewhere.body.error.code).toBe('idempotency_conflict');
  expect((await api.get(`/v1/sessions/${id}/events`)).body.data).toHaveLength(1);
});

it('makes one resource of many requests at once', async () => {
  const answers = await Promise.all(
    Array.from({ length: 10 }, () =>
      api.post('/v1/agents', { name: 'Once', model: 'm' }).set('idempotency-key', 'race'),
    ),
  );
  const made = answers.filter((answer) => answer.status === 200).map((answer) => answer.body.id as string);
  expect(new Set(made).size).toBe(1);
  for (const answer of answers) {
    if (answer.status !== 200) expect(answer.body.error.code).toBe('idempotency_in_progress');
  }
  const count = await api.pool.query(
    `SELECT count(*)::int AS n FROM agent_versions WHERE definition ->> 'name' = 'Once'`,
  );
  expect(count.rows[0]).toEqual({ n: 1 });
});

it('says that the first request still runs', async () => {
  const owner = await api.pool.query(`SELECT id FROM api_keys WHERE user_id = 'ada'`);
  const principal = (owner.rows[0] as { id: string }).id;
  await withTransaction(api.pool, async (tx) => {
    expect(await lockIdempotencyKey(tx, principal, 'busy')).toBe(true);
    const refused = await api.post('/v1/agents', { name: 'B', model: 'm' }).set('idempotency-key', 'busy').expect(409);
    expect(refused.body.error.code).toBe('idempotency_in_progress');
  });
  await api.post('/v1/agents', { name: 'B', model: 'm' }).set('idempotency-key', 'busy').expect(200);
});

it('keeps nothing of a request that failed, and forgets after a day', async () => {
  const send = (body: object) => api.post('/v1/agents', body).set('idempotency-key', 'retry');
  await send({ name: 'C' }).expect(400);
  const made = await send({ name: 'C', model: 'm' }).expect(200);
  await api.pool.query(`UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'retry'`);
  const later = await send({ name: 'D', model: 'm' }).expect(200);
  expect(later.body.id).not.toBe(made.body.id);
});

it('is cleaned of all that is old, however much it is, and of nothing else', async () => {
  await api.pool.query(
    `INSERT INTO idempotency_keys (principal, key, route, body_digest, status, response, created_at)
     SELECT 'someone', 'key-' || n, 'post /x', '', 200, '{}', now() - CASE WHEN n <= 25 THEN interval '25 hours' ELSE interval '0' END
     FROM generate_series(1, 27) AS n`,
  );
  expect(await deleteOldResponses(api.pool, 10)).toBe(25);
  const keys = await api.pool.query(`SELECT key FROM idempotency_keys WHERE principal = 'someone' ORDER BY key`);
  expect(keys.rows).toEqual([{ key: 'key-26' }, { key: 'key-27' }]);

  await api.pool.query(
    `INSERT INTO model_calls (idempotency_key, request_digest, state, owner, lease_expires_at, created_at)
     SELECT 'call-' || n, '', CASE WHEN n = 21 THEN 'in_flight' ELSE 'complete' END, 'me', now(), now() - interval '8 days'
     FROM generate_series(1, 21) AS n`,
  );
  expect(await deleteOldModelCalls(api.pool, 10)).toBe(20);
  const calls = await api.pool.query('SELECT idempotency_key FROM model_calls');
  expect(calls.rows).toEqual([{ idempotency_key: 'call-21' }]);
});
