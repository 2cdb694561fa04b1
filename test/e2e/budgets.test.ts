import { afterAll, beforeAll, expect, it } from 'vitest';
import { scriptMessage, SessionDriver } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

let stack: TestStack;
let driver: SessionDriver;
beforeAll(async () => {
  stack = await startStack();
  driver = new SessionDriver(stack);
}, 180_000);
afterAll(async () => {
  await driver?.close();
  await stack?.stop();
}, 120_000);

const limit = (cents: string) => ({ type: 'limit', max_list_cost: { amount: cents, currency: 'USD' } });

it('a session whose answer is stopped by its budget goes on when that is raised', { timeout: 180_000 }, async () => {
  // 10,000 tokens of output at the pretend price are 5 cents.
  const steps = [{ text: 'word'.repeat(10_000), chunks: 200, chunkMs: 10 }];
  const made = await driver.call('POST', '/v1/sessions', {
    ...(await driver.sessionBody(steps)),
    budget: limit('3'),
  });
  expect(made.status).toBe(200);
  const session = made.body.id!;
  await driver.untilSql('stopped', session, `s.stop_reason->>'type' = 'budget_reached'`);
  await driver.quiet([session]);
  const ledger = (): Promise<{ error: string | null; cost: number; output: number }[]> =>
    driver.query(
      `SELECT error, cost_micros::int AS cost, output_tokens::int AS output FROM ledger WHERE session_id = $1 ORDER BY created_at`,
      [session],
    );
  const [stopped, ...more] = await ledger();
  expect(more).toEqual([]);
  expect(stopped).toMatchObject({ error: 'budget_exceeded' });
  // In the middle: some of it was used, not all.
  expect(stopped?.output).toBeGreaterThan(500);
  expect(stopped?.output).toBeLessThan(10_000);
  expect(stopped?.cost).toBeLessThan(31_000);
  const shown = await driver.call('GET', `/v1/sessions/${session}`);
  expect(shown.body['stop_reason']).toEqual({ type: 'budget_reached' });

  // Without more money the next message is refused before the model is asked.
  await driver.send(session, scriptMessage([{ text: 'too early' }]));
  await driver.until('the second turn ends', async () => (await driver.turnEnds(session)).length === 2);
  await driver.quiet([session]);
  expect(await driver.turnEnds(session)).toEqual(['budget_reached', 'budget_reached']);
  expect(await ledger()).toHaveLength(1);

  expect((await driver.call('POST', `/v1/sessions/${session}`, { budget: limit('500') })).status).toBe(200);
  await driver.send(session, scriptMessage([{ text: 'went on' }]));
  await driver.until('the third turn ends', async () => (await driver.turnEnds(session)).length === 3);
  await driver.quiet([session]);
  expect((await driver.turnEnds(session)).at(-1)).toBe('end_turn');
  const told = await driver.query<{ kind: string; percent: number }>(
    `SELECT payload->>'kind' AS kind, (payload->>'percent')::int AS percent FROM events
     WHERE session_id = $1 AND type = 'session.budget_threshold' ORDER BY percent, kind`,
    [session],
  );
  expect(told).toContainEqual({ kind: 'threshold', percent: 50 });
  expect(told).toContainEqual({ kind: 'exhausted', percent: 100 });
  // The pool says what the ledger says, and nothing is held for a session that does nothing.
  const [sum] = await driver.query<{ cost: number }>(
    'SELECT sum(cost_micros)::int AS cost FROM ledger WHERE session_id = $1',
    [session],
  );
  await driver.until('the pool is settled', async () => {
    const pool = await driver.call('GET', `/v1/budgets?scope_id=${session}`);
    const [budget] = pool.body['data'] as { window: { spent_micros: number; reserved_micros: number } }[];
    return budget?.window.spent_micros === sum?.cost && budget?.window.reserved_micros === 0;
  });
});
