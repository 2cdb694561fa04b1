import { request as httpRequest, type Server } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { putSessionBudget } from '../../db/queries/budgets.ts';
import { budgetIdOfSession, isAllReleased, listenAsProvider, makeBudget, windowOf, WIRES } from './budget-support.ts';
import {
  createSession,
  errorOf,
  eventually,
  ledgerRows,
  mintKey,
  openTestBed,
  post,
  startGateway,
  stop,
  type RunningGateway,
  type TestBed,
} from './support.ts';

let bed: TestBed;
let gateway: RunningGateway;
let provider: { url: string; server: Server };
let models: unknown[] = [];
let outputTokens = 100;
let asked = 0;

beforeAll(async () => {
  bed = await openTestBed();
  provider = await listenAsProvider((_req, res, body) => {
    asked += 1;
    models.push(body['model']);
    res.end(JSON.stringify(WIRES.messages.whole(100, outputTokens)));
  });
  gateway = await startGateway(bed.pool, { ANTHROPIC_BASE_URL: provider.url, OPENAI_BASE_URL: `${provider.url}/v1` });
});
afterAll(async () => {
  await eventually(() => isAllReleased(bed.pool));
  await gateway.close();
  await stop(provider.server);
  await bed.close();
});

const PATIENCE = 60_000;
/** 100 input tokens at 5, 100 output tokens at 25 micro-dollars. */
const COST = 100 * 5 + 100 * 25;
const BODY = { model: 'claude-opus-5', max_tokens: 100, messages: [] };
const ask = (key: string, more: object = {}): Promise<Response> =>
  post(`${gateway.url}/v1/messages`, key, { ...BODY, ...more });

async function update(sessionId: string, set: string, value: unknown): Promise<void> {
  await bed.pool.query(`UPDATE sessions SET ${set} = $2 WHERE id = $1`, [sessionId, value]);
}

const spentOf = async (budgetId: string): Promise<number> => (await windowOf(bed.pool, budgetId)).spent;

describe('a call', () => {
  it(
    'is paid by every pool it belongs to, and refused by the first that has too little',
    { timeout: PATIENCE },
    async () => {
      const sessionId = await createSession(bed.pool);
      await update(sessionId, 'labels', JSON.stringify(['blue', 'red']));
      await update(sessionId, 'repo', 'acme/shop');
      const keyRow = await createApiKey(bed.pool, { name: 'ci', userId: 'pools-user', teamId: 'team' });
      const key = await mintKey(bed.pool, { sessionId, userId: 'pools-user' });
      const hard = { hardLimitMicros: 1_000_000 };
      const pools = await Promise.all([
        makeBudget(bed.pool, ['org', '*'], hard),
        makeBudget(bed.pool, ['team', 'team'], { ...hard, period: 'month' }),
        makeBudget(bed.pool, ['user', 'pools-user'], { ...hard, period: 'day' }),
        makeBudget(bed.pool, ['label', 'red'], hard),
        makeBudget(bed.pool, ['label', 'blue'], { ...hard, period: 'session' }),
        makeBudget(bed.pool, ['repo', 'acme/shop'], hard),
        makeBudget(bed.pool, ['session', sessionId], hard),
      ]);
      const others = await Promise.all([
        makeBudget(bed.pool, ['label', 'green'], hard),
        makeBudget(bed.pool, ['label', 'red'], { ...hard, teamId: 'other team' }),
        makeBudget(bed.pool, ['key', keyRow.id], hard),
      ]);
      expect((await ask(key)).status).toBe(200);
      await eventually(async () =>
        (await Promise.all(pools.map(({ id }) => spentOf(id)))).every((sum) => sum === COST),
      );
      expect(await Promise.all(others.map(({ id }) => spentOf(id)))).toEqual([0, 0, 0]);
      // Windows: for good, a month, a day, the session.
      const keys = await bed.pool.query<{ window_key: string }>(
        'SELECT window_key FROM budget_windows GROUP BY window_key ORDER BY length(window_key), window_key',
      );
      expect(keys.rows.map((row) => row.window_key)).toEqual([
        'total',
        new Date().toISOString().slice(0, 7),
        new Date().toISOString().slice(0, 10),
        sessionId,
      ]);
      // Only the key's own call is paid by the key's pool.
      expect((await ask(keyRow.key)).status).toBe(200);
      await eventually(async () => (await spentOf(others[2].id)) === COST);
      const small = await makeBudget(bed.pool, ['repo', 'acme/shop'], { name: 'small', hardLimitMicros: COST - 1 });
      const before = asked;
      const refused = await eventually(async () => {
        const response = await ask(key);
        return response.status === 402 && (await errorOf(response));
      });
      expect(refused.message).toContain(small.id);
      expect(asked - before).toBeLessThan(3);
      await bed.pool.query('UPDATE budgets SET archived_at = now()');
      await bed.pool.query(`SELECT pg_notify('longhaul_budgets', 'changed')`);
    },
  );

  it('of a sub-session is paid by the session at the top', { timeout: PATIENCE }, async () => {
    const root = await createSession(bed.pool, { budgetCents: '1' });
    const child = await createSession(bed.pool);
    await update(child, 'root_session_id', root);
    const own = { type: 'limit', max_list_cost: { amount: '5', currency: 'USD' } } as const;
    await putSessionBudget(bed.pool, { id: child, teamId: 'team', createdBy: 'user' }, own);
    const [rootKey, childKey] = await Promise.all([
      mintKey(bed.pool, { sessionId: root }),
      mintKey(bed.pool, { sessionId: child }),
    ]);
    expect((await ask(childKey)).status).toBe(200);
    expect((await ask(rootKey)).status).toBe(200);
    const rootPool = await budgetIdOfSession(bed.pool, root);
    await eventually(async () => (await spentOf(rootPool)) === 2 * COST);
    await eventually(async () => (await spentOf(await budgetIdOfSession(bed.pool, child))) === COST);
    expect((await ask(childKey)).status).toBe(200);
    expect((await ask(childKey)).status).toBe(402);
    const events = await eventually(async () => {
      const rows = await bed.pool.query<{ payload: Record<string, unknown> }>(
        `SELECT payload FROM events WHERE session_id = $1 AND type = 'session.budget_threshold' ORDER BY seq`,
        [root],
      );
      return (
        rows.rows.length === 3 &&
        rows.rows.map(({ payload }) => `${String(payload['kind'])} ${String(payload['percent'])}`)
      );
    });
    // Nine tenths are spent; what is left does not do for one more call.
    expect(events.toSorted()).toEqual(['exhausted 100', 'threshold 50', 'threshold 80']);
  });

  it('goes to a cheaper model once the share is spent', { timeout: PATIENCE }, async () => {
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    await makeBudget(bed.pool, ['root_session', sessionId], {
      hardLimitMicros: 10 * COST,
      degradeTo: 'claude-haiku-4-5',
      degradeAtPercent: 20,
    });
    models = [];
    const first = await ask(key);
    expect([first.status, first.headers.get('x-longhaul-degraded-from')]).toEqual([200, null]);
    expect((await ask(key)).status).toBe(200);
    const degraded = await eventually(async () => {
      const response = await ask(key);
      return response.headers.get('x-longhaul-degraded-from') !== null && response;
    });
    expect(degraded.headers.get('x-longhaul-degraded-from')).toBe('claude-opus-5');
    expect(models.at(-1)).toBe('claude-haiku-4-5');
    const row = await eventually(async () =>
      (await ledgerRows(bed.pool)).find((found) => found['session_id'] === sessionId && found['model'] !== BODY.model),
    );
    expect(row).toMatchObject({ model: 'claude-haiku-4-5', requested_model: 'claude-opus-5' });
    // The same request under a key of its own is the same, whatever model answers.
    const own = { 'idempotency-key': 'mine' };
    const answers = [
      await post(`${gateway.url}/v1/messages`, key, BODY, own),
      await post(`${gateway.url}/v1/messages`, key, BODY, own),
    ];
    expect(answers.map((response) => response.status)).toEqual([200, 200]);
  });

  it('of a model without a price is refused where a hard limit applies', { timeout: PATIENCE }, async () => {
    const [soft, hard] = [await createSession(bed.pool), await createSession(bed.pool)];
    await makeBudget(bed.pool, ['session', soft], { softLimitMicros: 10 });
    await makeBudget(bed.pool, ['session', hard], { hardLimitMicros: 1_000_000 });
    const call = async (sessionId: string): Promise<number> => {
      const key = await mintKey(bed.pool, { sessionId });
      return (await post(`${gateway.url}/v1/chat/completions`, key, { model: 'llama-of-ours', messages: [] })).status;
    };
    expect(await call(hard)).toBe(400);
    expect(await call(soft)).toBe(200);
  });

  it('whose caller left while its money was looked for is not made', { timeout: PATIENCE }, async () => {
    const sessionId = await createSession(bed.pool, { budgetCents: '100' });
    const key = await mintKey(bed.pool, { sessionId });
    const budgetId = await budgetIdOfSession(bed.pool, sessionId);
    await bed.pool.query(`INSERT INTO budget_windows (budget_id, window_key) VALUES ($1, 'total')`, [budgetId]);
    const before = asked;
    const blocker = await bed.pool.connect();
    try {
      // The lease waits for this row.
      await blocker.query('BEGIN');
      await blocker.query('SELECT 1 FROM budget_windows WHERE budget_id = $1 FOR UPDATE', [budgetId]);
      const url = new URL(`${gateway.url}/v1/messages`);
      const req = httpRequest(url, { method: 'POST', headers: { 'x-api-key': key } });
      req.on('error', () => undefined);
      req.end(JSON.stringify(BODY));
      await eventually(async () => {
        const waiting = await bed.pool.query(
          `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        return waiting.rowCount === 1;
      });
      const closed = new Promise((resolve) => req.once('close', resolve));
      req.destroy();
      await closed;
      // A later request of the same process is answered: by then the gateway has seen the other one end.
      expect((await fetch(`${gateway.url}/v1/models`, { headers: { 'x-api-key': key } })).status).toBe(200);
    } finally {
      await blocker.query('COMMIT');
      blocker.release();
    }
    await eventually(() => isAllReleased(bed.pool));
    expect(asked).toBe(before);
  });
});

describe('money', () => {
  it('is not held longer than it is used', { timeout: PATIENCE }, async () => {
    outputTokens = 1;
    const sessionId = await createSession(bed.pool, { budgetCents: '100' });
    const key = await mintKey(bed.pool, { sessionId });
    const budgetId = await budgetIdOfSession(bed.pool, sessionId);
    expect((await ask(key, { max_tokens: 5_000 })).status).toBe(200);
    await eventually(async () => (await windowOf(bed.pool, budgetId)).spent === 100 * 5 + 25);
    await eventually(async () => (await windowOf(bed.pool, budgetId)).reserved === 0);
    outputTokens = 100;
  });

  it('counts at once when a limit is raised', { timeout: PATIENCE }, async () => {
    const sessionId = await createSession(bed.pool, { budgetCents: '1' });
    const key = await mintKey(bed.pool, { sessionId });
    expect((await ask(key, { max_tokens: 1_000 })).status).toBe(402);
    const raised = { type: 'limit', max_list_cost: { amount: '10', currency: 'USD' } } as const;
    await putSessionBudget(bed.pool, { id: sessionId, teamId: 'team', createdBy: 'user' }, raised);
    expect((await ask(key, { max_tokens: 1_000 })).status).toBe(200);
  });
});
