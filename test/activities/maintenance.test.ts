import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import { mintVirtualKey } from '../../db/queries/virtual-keys.ts';
import { makeSession, testApi, type TestApi } from '../api/support.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

let api: TestApi;
let bed: WorkerBed;
beforeAll(async () => {
  api = await testApi();
  bed = await workerBed(api);
  await bed.start();
});
afterAll(async () => {
  await bed.close();
  await api.close();
});

const secondsAgo = (limitMs: number, moreS: number): string => `now() - interval '${limitMs / 1_000 + moreS} s'`;

describe('maintenance', { timeout: 120_000 }, () => {
  it('removes keys that expired long ago and calls that nobody makes any more, many at once, and nothing else', async () => {
    const sessionId = await makeSession(api);
    const expiresAt = async (name: string, sql: string): Promise<void> => {
      const { id } = await mintVirtualKey(api.pool, { teamId: name, userId: 'ada', sessionId });
      await api.pool.query(`UPDATE virtual_keys SET expires_at = ${sql} WHERE id = $1`, [id]);
    };
    await expiresAt('old', secondsAgo(LIMITS.expiredKeyKeptMs, 60));
    await expiresAt('fresh', secondsAgo(LIMITS.expiredKeyKeptMs, -60));
    await expiresAt('valid', `now() + interval '1 h'`);
    const call = (prefix: string, count: number, lease: string, state = 'in_flight'): Promise<unknown> =>
      api.pool.query(
        `INSERT INTO model_calls (idempotency_key, request_digest, state, owner, lease_expires_at)
         SELECT $1 || n, 'd', $3, 'g', ${lease} FROM generate_series(1, $2::int) AS n`,
        [prefix, count, state],
      );
    await call('abandoned', 2_500, secondsAgo(LIMITS.abandonedCallMs, 60));
    await call('taken over soon', 1, secondsAgo(LIMITS.abandonedCallMs, -60));
    await call('under way', 1, `now() + interval '10 s'`);
    await call('recorded', 1, secondsAgo(LIMITS.abandonedCallMs, 60), 'complete');

    await api.services.temporal.client.workflow.execute('maintenance', {
      workflowId: `maintenance/test/${api.taskQueue}`,
      taskQueue: api.taskQueue,
    });
    const names = async (sql: string): Promise<unknown[]> =>
      (await api.pool.query<{ name: string }>(sql)).rows.map(({ name }) => name);
    expect(await names('SELECT team_id AS name FROM virtual_keys ORDER BY 1')).toEqual(['fresh', 'valid']);
    expect(await names('SELECT idempotency_key AS name FROM model_calls ORDER BY 1')).toEqual([
      'recorded1',
      'taken over soon1',
      'under way1',
    ]);
  });
});
