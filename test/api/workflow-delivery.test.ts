import { fileURLToPath } from 'node:url';
import { NativeConnection, Runtime, DefaultLogger, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { sweepOnce } from '../../api/sweep.ts';
import { withTransaction } from '../../db/pool.ts';
import { consumeApproval } from '../../db/queries/approvals.ts';
import { sessionWorkflowId } from '../../workflows/ids.ts';
import { makeApproval, makeEffect } from './effects.ts';
import type { TestApi } from './support.ts';
import { makeSession, testApi } from './support.ts';

/** A real worker with a workflow that only records, so that what the API delivers can be seen from the other side. */
let api: TestApi;
let worker: Worker;
let connection: NativeConnection;
let running: Promise<void>;
beforeAll(async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  api = await testApi();
  connection = await NativeConnection.connect(api.services.config.temporal.connection);
  worker = await Worker.create({
    connection,
    taskQueue: api.taskQueue,
    workflowsPath: fileURLToPath(new URL('./fixtures/recorder-workflow.ts', import.meta.url)),
  });
  running = worker.run();
});
afterAll(async () => {
  worker.shutdown();
  await running;
  await connection.close();
  await api.close();
});

async function received(sessionId: string): Promise<Record<string, Record<string, unknown>>[]> {
  const handle = api.services.temporal.client.workflow.getHandle(sessionWorkflowId(sessionId));
  return handle.query('received');
}

it('delivers in order, once, by reference', async () => {
  const id = await makeSession(api, { initial_events: [{ type: 'user.message', content: 'one' }] });
  const sent = await api
    .post(`/v1/sessions/${id}/events`, {
      events: [
        { type: 'user.message', content: 'two' },
        { type: 'user.interrupt' },
        { type: 'user.message', content: 'three' },
      ],
    })
    .expect(200);
  const ids = (sent.body.data as { id: string }[]).map((event) => event.id);
  await api.services.delivery.drain();
  const log = await received(id);
  expect(log.map((entry) => Object.keys(entry)[0])).toEqual(['start', 'submit', 'interrupt', 'submit']);
  expect(log.slice(1)).toEqual([
    { submit: { eventId: ids[0], kind: 'message' } },
    { interrupt: { eventId: ids[1] } },
    { submit: { eventId: ids[2], kind: 'message' } },
  ]);
  // A redelivery after a crash: the update has the same id, so the workflow is not asked again.
  await api.pool.query(`UPDATE inputs SET state = 'accepted' WHERE session_id = $1 AND kind = 'message'`, [id]);
  await sweepOnce(api.services, 0);
  const again = await received(id);
  expect(again.filter((entry) => entry['submit']?.['eventId'] === ids[0])).toHaveLength(1);
  expect(again.filter((entry) => entry['submit']?.['eventId'] === ids[2])).toHaveLength(1);
});

it('carries decisions and answers to the workflow', async () => {
  const id = await makeSession(api);
  const gated = await makeEffect(api.pool, id, 'builtin');
  const approvalId = await makeApproval(api.pool, id, gated);
  const custom = await makeEffect(api.pool, id, 'custom');
  const sent = await api
    .post(`/v1/sessions/${id}/events`, {
      events: [
        { type: 'user.tool_confirmation', tool_use_id: gated, result: 'deny', deny_message: 'not today' },
        { type: 'user.custom_tool_result', custom_tool_use_id: custom, content: [{ type: 'text', text: '42' }] },
      ],
    })
    .expect(200);
  const ids = (sent.body.data as { id: string }[]).map((event) => event.id);
  await api.services.delivery.drain();
  expect(await received(id)).toEqual([
    { approve: { approvalId, decision: 'deny', eventId: ids[0], message: 'not today' } },
    { submit: { eventId: ids[1], kind: 'custom_tool_result', effectId: custom } },
  ]);
  const approval = await api.get(`/v1/approvals/${approvalId}`).expect(200);
  expect(approval.body).toMatchObject({
    state: 'denied',
    decision: 'deny',
    decided_by: 'user:ada',
    message: 'not today',
  });
  expect(await withTransaction(api.pool, (tx) => consumeApproval(tx, approvalId))).toBe(false);
});
