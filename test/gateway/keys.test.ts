import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { createApiKey, revokeApiKey, type ApiKeyFields } from '../../db/queries/api-keys.ts';
import { recordTurnEnd } from '../../db/queries/turn-end.ts';
import { openTurn } from '../../db/queries/turns.ts';
import {
  createSession,
  errorOf,
  eventually,
  messagesRequest,
  mintKey,
  openTestBed,
  post,
  scriptText,
  startGateway,
  type RunningGateway,
  type TestBed,
} from './support.ts';

let bed: TestBed;
let gateway: RunningGateway;

beforeAll(async () => {
  bed = await openTestBed();
  gateway = await startGateway(bed.pool, { OPENAI_API_KEY: 'x', OPENAI_BASE_URL: 'http://127.0.0.1:1/v1' });
});
afterAll(async () => {
  await gateway.close();
  await bed.close();
});
afterEach(() => {
  vi.useRealTimers();
});

function apiKey(limits: Partial<ApiKeyFields> = {}): Promise<{ id: string; key: string }> {
  return createApiKey(bed.pool, { name: 'k', userId: 'ada', teamId: 'team', ...limits });
}

async function status(key: string, model = 'scripted'): Promise<number> {
  const response = await post(`${gateway.url}/v1/messages`, key, { ...messagesRequest('hi'), model });
  await response.text();
  return response.status;
}

describe('a long-lived key', () => {
  it('calls the models it may call, and sees no others', async () => {
    const { key } = await apiKey({ allowedModels: ['scripted', 'gpt-5*'] });
    expect(await status(key)).toBe(200);
    const refused = await post(`${gateway.url}/v1/chat/completions`, key, { model: 'gpt-4o', messages: [] });
    expect([refused.status, (await errorOf(refused)).code]).toEqual([403, 'model_not_allowed']);
    const listed = await fetch(`${gateway.url}/v1/models`, { headers: { 'x-api-key': key } });
    const ids = ((await listed.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
    expect(ids).toContain('scripted');
    expect(ids).toContain('gpt-5');
    expect(ids).not.toContain('gpt-4o');
    const get = async (id: string): Promise<number> =>
      (await fetch(`${gateway.url}/v1/models/${id}`, { headers: { 'x-api-key': key } })).status;
    expect([await get('gpt-5'), await get('gpt-4o'), await get('no%2Fsuch')]).toEqual([200, 404, 404]);
  });

  it('runs as many calls at once as it may', async () => {
    const { key } = await apiKey({ maxParallel: 2 });
    const slow = messagesRequest(scriptText([{ text: 'abc', chunks: 3, chunkMs: 60_000 }]), { stream: true });
    const controllers = [new AbortController(), new AbortController()];
    await Promise.all(
      controllers.map(({ signal }) =>
        fetch(`${gateway.url}/v1/messages`, {
          method: 'POST',
          headers: { 'x-api-key': key },
          body: JSON.stringify(slow),
          signal,
        }),
      ),
    );
    expect(await status(key)).toBe(429);
    for (const controller of controllers) controller.abort();
    await eventually(async () => (await status(key)) === 200);
  });

  it('of the API alone makes no model calls', async () => {
    const { key } = await apiKey({ scopes: ['api'] });
    expect(await status(key)).toBe(403);
  });

  it('has a budget of its own', async () => {
    // 1,000 output tokens at the pretend price of 5 dollars a million are half a cent.
    const { key } = await apiKey({ budgetMicros: 4_000 });
    const body = messagesRequest(scriptText([{ text: 'x', usage: { input: 0, output: 1_000 } }]), { max_tokens: 100 });
    expect((await post(`${gateway.url}/v1/messages`, key, body)).status).toBe(200);
    await eventually(async () => (await post(`${gateway.url}/v1/messages`, key, body)).status === 402);
    expect(await status((await apiKey()).key)).toBe(200);
  });

  it('is refused two seconds after it was revoked, also by a gateway that has just seen it', async () => {
    const { id, key } = await apiKey();
    expect(await status(key)).toBe(200);
    await revokeApiKey(bed.pool, 'team', id);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 2_000 });
    expect(await status(key)).toBe(401);
  });

  it('is looked at again while it is used, without a call that waits for it', async () => {
    const { id, key } = await apiKey();
    expect(await status(key)).toBe(200);
    await revokeApiKey(bed.pool, 'team', id);
    // Old enough to be read again, young enough to be believed: the clock stands still from here on.
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 1_000 });
    await eventually(async () => (await status(key)) === 401);
  });

  it('ends by itself', async () => {
    const { key } = await apiKey({ expiresAt: new Date(Date.now() + 3_600_000) });
    expect(await status(key)).toBe(200);
    await bed.pool.query(`UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE name = 'k'`);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 2_000 });
    expect(await status(key)).toBe(401);
  });
});

describe('a key of one turn', () => {
  it('ends with the turn; the key of the session stays', async () => {
    const sessionId = await createSession(bed.pool);
    await openTurn(bed.pool, sessionId, 3, 'scripted');
    const [ofTurn, ofOther, ofSession] = await Promise.all([
      mintKey(bed.pool, { sessionId, turn: 3, threadId: 'th_1' }),
      mintKey(bed.pool, { sessionId, turn: 4 }),
      mintKey(bed.pool, { sessionId }),
    ]);
    expect(await status(ofTurn)).toBe(200);
    // That turn has not begun.
    expect(await status(ofOther)).toBe(401);
    await eventually(async () => {
      const { rows } = await bed.pool.query('SELECT thread_id FROM ledger WHERE session_id = $1', [sessionId]);
      return rows.length === 1 && (rows[0] as { thread_id: string }).thread_id === 'th_1';
    });
    const end = { state: 'completed', stopReason: 'end_turn', reason: 'done' } as const;
    await recordTurnEnd(bed.pool, { sessionId, turn: 3, eventIds: [], ...end });
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 2_000 });
    expect(await status(ofTurn)).toBe(401);
    expect(await status(ofSession)).toBe(200);
    const { rows } = await bed.pool.query('SELECT turn FROM virtual_keys WHERE revoked_at IS NOT NULL');
    expect(rows).toEqual([{ turn: 3 }]);
  });
});
