import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ActivityDeps } from '../../activities/deps.ts';
import { continuationOf } from '../../activities/harness/continuation.ts';
import { EventSink } from '../../activities/harness/sink.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import { loadSessionForTurn, lockSession } from '../../db/queries/session-status.ts';
import { openTurn } from '../../db/queries/turns.ts';
import { requestCall } from '../../temporal/tool-calls.ts';
import { testApi, type TestApi } from '../api/support.ts';

const TEST_MS = 120_000;
let api: TestApi;
let sessionId: string;
beforeAll(async () => {
  api = await testApi();
  const agent = ((await api.post('/v1/agents', { name: 'a', model: 'scripted' })).body as { id: string }).id;
  const environment = ((await api.post('/v1/environments', { name: 'e' })).body as { id: string }).id;
  const made = await api.post('/v1/sessions', { agent, environment_id: environment });
  sessionId = (made.body as { id: string }).id;
  await withTransaction(api.pool, async (tx) => {
    await lockSession(tx, sessionId);
    await openTurn(tx, sessionId, 1, 'scripted');
  });
}, TEST_MS);
afterAll(() => api.close());

const HUGE = { command: 'x'.repeat(LIMITS.mcpMessageBytes) };

describe('a harness in the hands of its agent', { timeout: TEST_MS }, () => {
  it.each([{ input: HUGE }, { tool: 'x'.repeat(300) }, { harnessCallId: 'x'.repeat(300) }])(
    'asks for nothing that is too large to be recorded',
    async (more) => {
      const draft = { sessionId, executor: 'harness', tool: 'bash', input: {}, ...more } as const;
      const deps = { pool: api.pool, temporal: api.services.temporal.client };
      await expect(requestCall(deps, draft, AbortSignal.timeout(TEST_MS))).rejects.toMatchObject({
        code: 'limit_reached',
      });
    },
  );

  it('does not flood the log with what it ran by itself', async () => {
    const session = await loadSessionForTurn(api.pool, sessionId);
    const sink = new EventSink({ pool: api.pool } as ActivityDeps, session, 1, AbortSignal.timeout(TEST_MS));
    await sink.emit({ type: 'tool_call', id: 'huge', tool: 'bash', input: HUGE });
    await sink.emit({ type: 'tool_call', id: 'usual', tool: 'bash', input: { command: 'ls' } });
    await sink.close();
    const { rows } = await api.pool.query<{ input: object }>(
      `SELECT payload -> 'input' AS input FROM events WHERE session_id = $1 AND type = 'agent.tool_use' ORDER BY seq`,
      [sessionId],
    );
    expect(rows.map(({ input }) => input)).toEqual([
      { omitted: expect.stringMatching(/^\d+ bytes of input$/) },
      { command: 'ls' },
    ]);
  });
});

describe('a harness that goes on', () => {
  it('is told of many long results no more than a model can read', () => {
    const result = { content: [{ type: 'text' as const, text: 'x'.repeat(30_000) }] };
    const call = { effectId: 'e', executor: 'platform', tool: 'bash', input: {}, state: 'succeeded' } as const;
    const calls = Array.from({ length: 50 }, (_, id) => ({ ...call, id: String(id), idempotent: false, result }));
    const text = continuationOf(calls);
    expect(text.length).toBeLessThan(120_000);
    expect(text.match(/It was run/g)).toHaveLength(50);
  });
});
