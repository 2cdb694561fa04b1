import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import { claimAnswer, completeAnswer, deleteOldAnswers, releaseAnswer } from '../../db/queries/cached-answers.ts';
import { openTestBed, type TestBed } from './support.ts';

let bed: TestBed;
beforeAll(async () => {
  bed = await openTestBed();
});
afterAll(() => bed.close());

const at = (key: string): { key: string; layer: 'response'; teamId: string } => ({
  key,
  layer: 'response',
  teamId: 't',
});
const ANSWER = { headers: {}, body: Buffer.from('x'), provider: 'p', model: 'm', deployment: null };
const lease = (owner: string): { owner: string; leaseMs: number } => ({ owner, leaseMs: 60_000 });

describe('cached answers', () => {
  it('are made by one asker, whose late end does not replace what another made', async () => {
    expect(await claimAnswer(bed.pool, at('a'), lease('one'))).toEqual({ state: 'owned' });
    expect(await claimAnswer(bed.pool, at('a'), lease('two'))).toEqual({ state: 'busy' });
    await releaseAnswer(bed.pool, 'a', 'two');
    expect(await claimAnswer(bed.pool, at('a'), lease('two'))).toEqual({ state: 'busy' });
    await bed.pool.query(`UPDATE cached_answers SET lease_expires_at = now() - interval '1 s'`);
    expect(await claimAnswer(bed.pool, at('a'), lease('two'))).toEqual({ state: 'owned' });
    await completeAnswer(bed.pool, at('a'), 'two', ANSWER, 60_000);
    await completeAnswer(bed.pool, at('a'), 'one', { ...ANSWER, body: Buffer.from('late') }, 60_000);
    await releaseAnswer(bed.pool, 'a', 'two');
    expect(await claimAnswer(bed.pool, at('a'), lease('three'))).toEqual({ state: 'hit', answer: ANSWER });
  });

  it('are removed when they are old, abandoned or too many', async () => {
    await bed.pool.query('TRUNCATE cached_answers');
    await completeAnswer(bed.pool, at('expired'), 'o', ANSWER, 0);
    await completeAnswer(bed.pool, at('fresh'), 'o', ANSWER, 60_000);
    await claimAnswer(bed.pool, at('running'), lease('o'));
    await claimAnswer(bed.pool, at('abandoned'), lease('o'));
    await bed.pool.query(`UPDATE cached_answers SET lease_expires_at = now() - interval '2 h' WHERE key = 'abandoned'`);
    expect(await deleteOldAnswers(bed.pool, 10)).toBe(2);
    const keys = async (): Promise<unknown[]> =>
      (await bed.pool.query<{ key: string }>(`SELECT key FROM cached_answers ORDER BY key`)).rows.map(({ key }) => key);
    expect(await keys()).toEqual(['fresh', 'running']);
    await bed.pool.query(
      `INSERT INTO cached_answers (key, layer, team_id, state, owner, lease_expires_at, answer, body, created_at, expires_at)
       SELECT 'n' || n, 'response', 't', 'complete', 'o', now(), '{}', '', now() - interval '1 h', now() + interval '1 h'
       FROM generate_series(1, $1) AS n`,
      [LIMITS.cachedAnswers + 1],
    );
    // The oldest go; the newest stays.
    expect(await deleteOldAnswers(bed.pool, 1_000)).toBe(2);
    expect(await keys()).toContain('fresh');
  });
});
