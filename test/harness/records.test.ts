import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { withTransaction } from '../../db/pool.ts';
import type { HarnessCallDraft, HarnessCallRow } from '../../db/queries/harness-calls.ts';
import { getHarnessCall, markDelivered, putHarnessCall, readCallStatus } from '../../db/queries/harness-calls.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import { writeSessionEnd } from '../../db/queries/session-end.ts';
import { findSessionToken, mintSessionToken } from '../../db/queries/session-tokens.ts';
import { openTurn } from '../../db/queries/turns.ts';
import { findVirtualKey, mintVirtualKey } from '../../db/queries/virtual-keys.ts';
import type { TestApi } from '../api/support.ts';
import { testApi } from '../api/support.ts';

const TEST_MS = 120_000;
let api: TestApi;
let agentId: string;
let environmentId: string;
beforeAll(async () => {
  api = await testApi();
  agentId = ((await api.post('/v1/agents', { name: 'a', model: 'scripted' })).body as { id: string }).id;
  environmentId = ((await api.post('/v1/environments', { name: 'e' })).body as { id: string }).id;
}, TEST_MS);
afterAll(() => api.close());

async function makeSession(): Promise<string> {
  const made = await api.post('/v1/sessions', { agent: agentId, environment_id: environmentId });
  return (made.body as { id: string }).id;
}

const create = (fields: object): ReturnType<TestApi['post']> =>
  api.post('/v1/agents', { name: 'a', model: 'scripted', ...fields });

describe('agents of harnesses', () => {
  it('name the field that no driver can do', { timeout: TEST_MS }, async () => {
    const placed = await create({ harness: 'native', placement: 'sandbox' });
    expect([placed.status, placed.body.error.code, placed.body.error.field]).toEqual([
      400,
      'harness_invalid',
      'placement',
    ]);
    const other = await create({ harness: 'native', harness_agent: 'x' });
    expect([other.status, other.body.error.code, other.body.error.field]).toEqual([
      400,
      'harness_invalid',
      'harness_agent',
    ]);
    const unknown = await create({ harness: 'abacus' });
    expect([unknown.status, unknown.body.error.field]).toEqual([400, 'harness']);
  });

  it('show what drives them', { timeout: TEST_MS }, async () => {
    const made = await api.post('/v1/agents', { name: 'a', model: 'scripted', harness: 'native' });
    expect(made.body).toMatchObject({ harness: 'native', placement: 'inline', harness_agent: null });
    const session = await api.get(`/v1/sessions/${await makeSession()}`);
    expect(session.body.agent).toMatchObject({ harness: 'native', placement: 'inline', harness_agent: null });
  });
});

describe('tokens of a session', () => {
  it('open one session for one purpose, and end with it', { timeout: TEST_MS }, async () => {
    const sessionId = await makeSession();
    const { token } = await mintSessionToken(api.pool, sessionId, 'mcp');
    expect(await findSessionToken(api.pool, token, 'mcp')).toMatchObject({ sessionId, teamId: 'team-a' });
    expect(await findSessionToken(api.pool, token, 'hook')).toBeUndefined();
    expect(await findSessionToken(api.pool, `${token}x`, 'mcp')).toBeUndefined();
    const { token: late } = await mintSessionToken(api.pool, sessionId, 'mcp', 0);
    expect(await findSessionToken(api.pool, late, 'mcp')).toBeUndefined();
    const stored = await api.pool.query(`SELECT * FROM session_tokens WHERE session_id = $1`, [sessionId]);
    expect(JSON.stringify(stored.rows)).not.toContain(token);
    await withTransaction(api.pool, (tx) => writeSessionEnd(tx, sessionId, 'over'));
    expect(await findSessionToken(api.pool, token, 'mcp')).toBeUndefined();
  });

  it('and the key of a harness says that it follows the turns', { timeout: TEST_MS }, async () => {
    const draft = { teamId: 'team-a', userId: 'ada', sessionId: await makeSession() };
    const { key } = await mintVirtualKey(api.pool, { ...draft, followsTurn: true });
    expect((await findVirtualKey(api.pool, key))?.followsTurn).toBe(true);
    const { key: other } = await mintVirtualKey(api.pool, draft);
    expect((await findVirtualKey(api.pool, other))?.followsTurn).toBe(false);
  });
});

describe('calls of a harness', () => {
  let sessionId: string;
  beforeEach(async () => {
    sessionId = await makeSession();
    await api.pool.query(
      `INSERT INTO harness_sessions (session_id, harness, placement, turn, epoch) VALUES ($1, 'acp', 'inline', 1, 1)`,
      [sessionId],
    );
  }, TEST_MS);

  const begin = (turn: number): Promise<void> =>
    withTransaction(api.pool, (tx) => openTurn(tx, sessionId, turn, 'scripted'));
  const nextLife = (): Promise<unknown> =>
    api.pool.query('UPDATE harness_sessions SET epoch = epoch + 1 WHERE session_id = $1', [sessionId]);
  const ask = (command: string, more: Partial<HarnessCallDraft> = {}): Promise<HarnessCallRow> =>
    withTransaction(api.pool, async (tx) => {
      await lockSession(tx, sessionId);
      return putHarnessCall(tx, { sessionId, executor: 'platform', tool: 'bash', input: { command }, ...more });
    });

  it('are taken while a turn runs only', { timeout: TEST_MS }, async () => {
    await expect(ask('true')).rejects.toMatchObject({ code: 'no_turn_running' });
    await begin(1);
    expect(await ask('true')).toMatchObject({ turn: 1, epoch: 1, effectId: null });
    await api.pool.query(`UPDATE turns SET state = 'completed' WHERE session_id = $1`, [sessionId]);
    await expect(ask('true')).rejects.toMatchObject({ code: 'no_turn_running' });
  });

  it('with the same id are one, without one they are two', { timeout: TEST_MS }, async () => {
    await begin(1);
    const first = await ask('date', { harnessCallId: 'call_1' });
    expect((await ask('date', { harnessCallId: 'call_1' })).id).toBe(first.id);
    expect((await ask('date', { harnessCallId: 'call_2' })).id).not.toBe(first.id);
    expect((await ask('date')).id).not.toBe((await ask('date')).id);
    // An id that names something else by now is another call.
    expect((await ask('uptime', { harnessCallId: 'call_1' })).id).not.toBe(first.id);
  });

  it('of a harness that died are found again, oldest first, each once', { timeout: TEST_MS }, async () => {
    await begin(1);
    const [first, second, other] = [await ask('date'), await ask('date'), await ask('uptime')];
    const told = await ask('date');
    await markDelivered(api.pool, told.id);
    await nextLife();
    const again = await ask('date', { harnessCallId: 'new_1' });
    expect([again.id, again.epoch, again.harnessCallId]).toEqual([first.id, 2, 'new_1']);
    expect((await ask('date')).id).toBe(second.id);
    const fresh = await ask('date');
    expect([first.id, second.id, other.id, told.id]).not.toContain(fresh.id);
    expect((await ask('uptime', { executor: 'harness' })).id).not.toBe(other.id);
    expect((await ask('uptime')).id).toBe(other.id);
    // What an earlier life waits for is nobody's.
    expect(await readCallStatus(api.pool, told.id)).toMatchObject({ epoch: 1, currentEpoch: 2 });
  });

  it('do not reach over turns', { timeout: TEST_MS }, async () => {
    await begin(1);
    const first = await ask('date', { harnessCallId: 'call_1' });
    await api.pool.query(`UPDATE turns SET state = 'interrupted' WHERE session_id = $1`, [sessionId]);
    await begin(2);
    await api.pool.query('UPDATE harness_sessions SET turn = 2, epoch = 5 WHERE session_id = $1', [sessionId]);
    const next = await ask('date', { harnessCallId: 'call_1' });
    expect(next.id).not.toBe(first.id);
    expect(await getHarnessCall(api.pool, next.id)).toMatchObject({ turn: 2, epoch: 5, digest: first.digest });
  });
});
