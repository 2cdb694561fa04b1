import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SessionTraceResource } from '../../contracts/traces.ts';
import { withTransaction } from '../../db/pool.ts';
import { recordTurnEnd, writeTurnEnd } from '../../db/queries/turn-end.ts';
import { openTurn } from '../../db/queries/turns.ts';
import { mintVirtualKey } from '../../db/queries/virtual-keys.ts';
import { makeSession, testApi, type TestApi } from '../api/support.ts';
import {
  errorOf,
  eventually,
  messagesRequest,
  post,
  scriptText,
  startGateway,
  type RunningGateway,
} from './support.ts';

const WAIT_MS = 120_000;
const END = { state: 'completed', stopReason: 'end_turn', reason: 'done', eventIds: [] as string[] } as const;

let api: TestApi;
let gateway: RunningGateway;
beforeAll(async () => {
  api = await testApi();
  gateway = await startGateway(api.pool);
}, WAIT_MS);
afterAll(async () => {
  await gateway.close();
  await api.close();
}, WAIT_MS);

async function session(): Promise<{ sessionId: string; key: string }> {
  const sessionId = await makeSession(api);
  const { key } = await mintVirtualKey(api.pool, { teamId: 'team-a', userId: 'ada', sessionId, followsTurn: true });
  return { sessionId, key };
}

interface RowPlace {
  turn: number | null;
  step: number | null;
  output_tokens: number;
  cost_micros: number;
}

/** The session's rows, once there are so many: they are written behind the answer. */
function rowsOf(sessionId: string, count: number): Promise<RowPlace[]> {
  return eventually(async () => {
    const { rows } = await api.pool.query<RowPlace>(
      `SELECT turn, step, output_tokens::int, cost_micros::int FROM ledger WHERE session_id = $1 ORDER BY turn, step`,
      [sessionId],
    );
    return rows.length === count && rows;
  });
}

/** A call whose answer has so many output tokens: its row is known by them. */
async function call(key: string, output: number, headers: Record<string, string> = {}): Promise<Response> {
  const body = messagesRequest(scriptText([{ text: 'x', usage: { input: 10, output } }]));
  const response = await post(`${gateway.url}/v1/messages`, key, body, headers);
  await response.clone().text();
  return response;
}

describe('a key that follows the turn of its session', () => {
  it(
    'puts each call on the turn that runs, also when one has just ended and the next begun',
    async () => {
      const { sessionId, key } = await session();
      const costs = new Map<number, number>();
      for (let turn = 1; turn <= 3; turn += 1) {
        await openTurn(api.pool, sessionId, turn, 'scripted');
        const calls = [1, 2, 3].map((index) => call(key, turn * 100 + index));
        for (const answer of await Promise.all(calls)) expect(answer.status).toBe(200);
        await recordTurnEnd(api.pool, { sessionId, turn, ...END });
      }
      const rows = await rowsOf(sessionId, 9);
      // Who is who is told by the tokens the call was made with.
      expect(rows.map((row) => row.turn)).toEqual(rows.map((row) => Math.floor(row.output_tokens / 100)));
      for (const row of rows) costs.set(row.turn ?? 0, (costs.get(row.turn ?? 0) ?? 0) + row.cost_micros);
      for (const turn of [1, 2, 3]) {
        expect(rows.filter((row) => row.turn === turn).map((row) => row.step)).toEqual([0, 1, 2]);
      }
      const total = [...costs.values()].reduce((sum, cost) => sum + cost, 0);
      expect(total).toBeGreaterThan(0);

      const ofSession = await api.get(`/v1/sessions/${sessionId}/usage`).expect(200);
      expect(ofSession.body).toMatchObject({ total: { cost_micros: total }, models: [{ calls: 9 }] });
      const byTurn = await api.get(`/v1/usage?group_by[]=turn&session=${sessionId}`).expect(200);
      const groups = (byTurn.body as { data: { group: { turn: number }; cost_micros: number }[] }).data;
      expect(new Map(groups.map(({ group, cost_micros: cost }) => [group.turn, cost]))).toEqual(costs);
      const trace = (await api.get(`/v1/sessions/${sessionId}/trace`).expect(200)).body as SessionTraceResource;
      expect(trace.other_calls).toEqual([]);
      const traced = trace.turns.map(({ turn, steps }): [number, number] => [
        turn,
        steps.reduce((sum, step) => sum + (step.call?.cost_micros ?? 0), 0),
      ]);
      expect(new Map(traced)).toEqual(costs);
    },
    WAIT_MS,
  );

  it(
    'makes no call where no turn runs, and says so',
    async () => {
      const { sessionId, key } = await session();
      const before = await call(key, 1);
      expect([before.status, (await errorOf(before)).code]).toEqual([409, 'no_turn_running']);
      expect(before.headers.get('x-should-retry')).toBe('false');
      await openTurn(api.pool, sessionId, 1, 'scripted');
      expect((await call(key, 2)).status).toBe(200);
      await recordTurnEnd(api.pool, { sessionId, turn: 1, ...END });
      // At once, although the gateway has just seen the key.
      const after = await call(key, 3);
      expect([after.status, (await errorOf(after)).code]).toEqual([409, 'no_turn_running']);
      expect((await rowsOf(sessionId, 1)).map((row) => row.output_tokens)).toEqual([2]);
      // What costs nothing needs no turn.
      const counted = await post(`${gateway.url}/v1/messages/count_tokens`, key, messagesRequest('hi'));
      expect(counted.status).toBe(200);
      const models = await fetch(`${gateway.url}/v1/models`, { headers: { 'x-api-key': key } });
      expect(models.status).toBe(200);
    },
    WAIT_MS,
  );

  it(
    'waits for a turn that is being ended, and is not put on it',
    async () => {
      const { sessionId, key } = await session();
      await openTurn(api.pool, sessionId, 1, 'scripted');
      let asked: Promise<Response> | undefined;
      await withTransaction(api.pool, async (tx) => {
        await writeTurnEnd(tx, { sessionId, turn: 1, ...END });
        asked = call(key, 5);
        await eventually(async () => {
          const { rows } = await api.pool.query(
            `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
               AND query LIKE 'UPDATE turns SET model_calls%'`,
          );
          return rows.length > 0;
        });
      });
      expect((await asked)?.status).toBe(409);
    },
    WAIT_MS,
  );

  it(
    'leaves a call that outlives its turn where it began, and bills what was made of it',
    async () => {
      const { sessionId, key } = await session();
      await openTurn(api.pool, sessionId, 1, 'scripted');
      const slow = messagesRequest(scriptText([{ text: 'abcdef', chunks: 6, chunkMs: 600_000 }]), { stream: true });
      const abort = new AbortController();
      const streaming = await fetch(`${gateway.url}/v1/messages`, {
        method: 'POST',
        headers: { 'x-api-key': key },
        body: JSON.stringify(slow),
        signal: abort.signal,
      });
      expect(streaming.status).toBe(200);
      await recordTurnEnd(api.pool, { sessionId, turn: 1, ...END, state: 'interrupted' });
      await openTurn(api.pool, sessionId, 2, 'scripted');
      expect((await call(key, 7)).status).toBe(200);
      abort.abort();
      const rows = await rowsOf(sessionId, 2);
      expect(rows.map(({ turn, step }) => ({ turn, step }))).toEqual([
        { turn: 1, step: 0 },
        { turn: 2, step: 0 },
      ]);
      expect(rows[0]?.cost_micros).toBeGreaterThan(0);
    },
    WAIT_MS,
  );

  it(
    'names no place by an idempotency key, and its answers under one are of the turn too',
    async () => {
      const { sessionId, key } = await session();
      await openTurn(api.pool, sessionId, 4, 'scripted');
      const place = { 'idempotency-key': `${sessionId}/1/0` };
      expect((await call(key, 8, place)).status).toBe(200);
      const again = await call(key, 8, place);
      expect([again.status, again.headers.get('x-longhaul-replayed')]).toEqual([200, 'true']);
      expect(await rowsOf(sessionId, 1)).toMatchObject([{ turn: 4, step: 0, output_tokens: 8 }]);
    },
    WAIT_MS,
  );

  it(
    'takes no background responses: their cost would be known too late',
    async () => {
      const { sessionId, key } = await session();
      await openTurn(api.pool, sessionId, 1, 'scripted');
      const body = { model: 'scripted', input: 'hi', background: true };
      const refused = await post(`${gateway.url}/v1/responses`, key, body);
      expect([refused.status, (await errorOf(refused)).message]).toEqual([400, expect.stringContaining('background')]);
    },
    WAIT_MS,
  );

  it(
    'is stopped by the budget of its session',
    async () => {
      const sessionId = await makeSession(api, {
        budget: { type: 'limit', max_list_cost: { amount: '1', currency: 'USD' } },
      });
      const draft = { teamId: 'team-a', userId: 'ada', sessionId, followsTurn: true };
      const { key } = await mintVirtualKey(api.pool, draft);
      await openTurn(api.pool, sessionId, 1, 'scripted');
      const limited = messagesRequest(scriptText([{ text: 'x', usage: { input: 0, output: 1_000 } }]), {
        max_tokens: 10,
      });
      expect((await post(`${gateway.url}/v1/messages`, key, limited)).status).toBe(200);
      await eventually(async () => (await post(`${gateway.url}/v1/messages`, key, limited)).status === 402);
    },
    WAIT_MS,
  );
});
