import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sweepOnce } from '../../api/sweep.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { SessionArgs } from '../../workflows/messages.ts';
import { sessionWorkflowId } from '../../workflows/ids.ts';
import { testApi, type TestApi } from '../api/support.ts';
import { ASKING, BED_PATIENCE_MS, BedDriver, toolset } from '../support/bed-driver.ts';
import { eventually } from '../support/stack.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

const LOOKUP = { type: 'custom', name: 'lookup', description: 'looks up', input_schema: { type: 'object' } };

let api: TestApi;
let bed: WorkerBed;
let driver: BedDriver;
beforeAll(async () => {
  api = await testApi();
  bed = await workerBed(api);
  driver = new BedDriver(api);
  await bed.start();
});
afterAll(async () => {
  await bed.close();
  await api.close();
});

const temporal = () => api.services.temporal.client.workflow;

/** Models that differ, and are as long as they may be: none of them is carried. */
const model = (index: number): string => `scripted-${index}-`.padEnd(LIMITS.nameChars, 'x');

describe('what Temporal is given', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('is under 64 KB when a run is continued as new with a full queue, and the queue keeps its order', async () => {
    const session = await driver.open([{ tools: [{ name: 'lookup', input: {} }] }, { text: 'went on' }], [LOOKUP]);
    await driver.until('it waits for an answer', session, ASKING);
    const first = (await temporal().getHandle(sessionWorkflowId(session)).describe()).runId;
    const queued: string[] = [];
    for (let sent = 0; sent < LIMITS.queuedInputs; sent += LIMITS.eventsPerSend) {
      const events = Array.from({ length: LIMITS.eventsPerSend }, (_, index) => ({
        type: 'user.message',
        content: `message ${sent + index}`,
        model: sent + index === 0 ? 'scripted' : model(sent + index),
      }));
      queued.push(...(await driver.send(session, ...events)));
    }
    const full = await api.post(`/v1/sessions/${session}/events`, {
      events: [{ type: 'user.message', content: 'one too many' }],
    });
    expect(full.body.error.code).toBe('queue_full');
    const left = `SELECT count(*)::int AS n FROM inputs WHERE session_id = $1 AND state = 'accepted'`;
    const isDelivered = async (): Promise<boolean> => {
      await sweepOnce(api.services, 0);
      return (await api.pool.query<{ n: number }>(left, [session])).rows[0]?.n === 0;
    };
    await eventually('the workflow has them all', isDelivered, BED_PATIENCE_MS);

    const effect = await driver.one<{ id: string }>('SELECT id FROM effects WHERE session_id = $1', session);
    const content = [{ type: 'text', text: 'found' }];
    await driver.send(session, { type: 'user.custom_tool_result', custom_tool_use_id: effect.id, content });
    const handle = temporal().getHandle(sessionWorkflowId(session));
    await eventually('its history is cut', async () => (await handle.describe()).runId !== first, BED_PATIENCE_MS);
    await driver.until('the next turn has begun', session, 's.current_turn >= 2');

    const next = (await temporal().getHandle(sessionWorkflowId(session), first).fetchHistory()).events?.at(
      -1,
    )?.workflowExecutionContinuedAsNewEventAttributes;
    const data = next?.input?.payloads?.[0]?.data ?? new Uint8Array();
    expect(data.length).toBeGreaterThan(30_000);
    expect(data.length).toBeLessThan(64 * 1024);
    const { carry } = JSON.parse(Buffer.from(data).toString()) as SessionArgs;
    expect(carry?.queue).toEqual(queued);
    const second = await api.pool.query(
      `SELECT i.event_id, t.model FROM inputs i JOIN turns t ON t.session_id = i.session_id AND t.turn = i.turn
       WHERE i.session_id = $1 AND i.turn = 2 AND i.kind = 'message'`,
      [session],
    );
    expect(second.rows).toEqual([{ event_id: queued[0], model: 'scripted' }]);
    await handle.terminate('measured');
  });

  it.each([
    ['questions', 'bash', [toolset('always_ask')]],
    ['custom tools', 'x'.repeat(128), [{ ...LOOKUP, name: 'x'.repeat(128) }]],
  ])('is under 4 KB for a step with more %s than a step may have', async (_what, name, tools) => {
    const calls = Array.from({ length: LIMITS.toolCallsPerStep + 12 }, (_, index) => ({
      name,
      input: { command: `echo ${index}`, timeout_ms: LIMITS.toolTimeoutMaxMs },
    }));
    const session = await driver.open([{ tools: calls }, { text: 'went on' }], tools);
    await driver.until('it asks', session, ASKING);
    const handle = temporal().getHandle(sessionWorkflowId(session));
    const { events = [] } = await handle.fetchHistory();
    const results = (events ?? []).flatMap(
      (event) => event.activityTaskCompletedEventAttributes?.result?.payloads?.[0]?.data?.length ?? [],
    );
    expect(Math.max(...results)).toBeGreaterThan(1_000);
    expect(Math.max(...results)).toBeLessThanOrEqual(4_096);
    const { rows } = await api.pool.query(
      `SELECT state, count(*)::int AS n, min(result->'content'->0->>'text') AS told FROM effects
       WHERE session_id = $1 GROUP BY state ORDER BY state`,
      [session],
    );
    expect(rows).toEqual([
      {
        state: 'denied',
        n: 12,
        told: expect.stringMatching(/more than 20 tool calls in one step; make this call again/),
      },
      { state: 'waiting', n: LIMITS.toolCallsPerStep, told: null },
    ]);
    await handle.terminate('measured');
  });
});
