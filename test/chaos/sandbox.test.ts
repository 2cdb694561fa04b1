import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { bash, scriptMessage, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { isRunning, startStack, type TestStack } from '../support/stack.ts';

describe('a sandbox', { timeout: STACK_TEST_MS }, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  beforeAll(async () => {
    stack = await startStack();
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver.close();
    await stack.stop();
  });

  const check = async (...sessionIds: string[]): Promise<void> => {
    const { query, recorder } = driver;
    const temporal = await driver.temporal();
    for (const sessionId of sessionIds) await checkInvariants(query, sessionId, { recorder, temporal });
  };
  const killSandbox = async (sessionId: string): Promise<void> => {
    const [holder] = await driver.recorder.processesOf(sessionId);
    if (holder === undefined) throw new Error(`${sessionId} has no sandbox process`);
    process.kill(holder, 'SIGKILL');
  };
  const effectOf = async (sessionId: string): Promise<Record<string, unknown>> => {
    const [row] = await driver.query<Record<string, unknown>>(
      'SELECT state, generation, is_error, result::text AS result FROM effects WHERE session_id = $1',
      [sessionId],
    );
    return row ?? {};
  };

  it('dies under a command: its outcome is unknown, a person is asked, nothing runs again by itself', async () => {
    const decisions = ['retry', 'done', 'skip', 'none'] as const;
    const sessions = await Promise.all(
      decisions.map((decision) => driver.open([{ tools: [bash(recorded(decision, 3))] }, { text: 'went on' }])),
    );
    for (const [index, decision] of decisions.entries()) await driver.ran(sessions[index] ?? '', decision);
    for (const session of sessions) await killSandbox(session);
    const approvals = await Promise.all(sessions.map((session) => driver.pendingApproval(session)));
    expect(approvals.map(({ kind }) => kind)).toEqual(decisions.map(() => 'lost_effect'));
    for (const [index, decision] of decisions.entries()) {
      expect(await effectOf(sessions[index] ?? '')).toMatchObject({ state: 'unknown', generation: 1 });
      expect(await driver.recorder.traces(sessions[index] ?? '', decision)).toEqual({ starts: 1, ends: 0 });
    }
    const [retry = '', done = '', skip = '', none = ''] = sessions;
    // A worker that starts anew must not take the question for a reason to run it.
    await stack.killAndRecover('worker');
    for (const [index, decision] of decisions.entries()) {
      const { id } = approvals[index] ?? { id: '' };
      expect((await driver.decide(id, 'allow')).status).toBe(400);
      if (decision === 'none') continue;
      expect((await driver.decide(id, decision, decision === 'skip' ? { message: 'leave it' } : {})).status).toBe(200);
    }
    await driver.send(none, { type: 'user.interrupt' });
    await driver.quiet(sessions);
    expect(await effectOf(retry)).toMatchObject({ state: 'succeeded', generation: 2, is_error: false });
    expect(await driver.recorder.traces(retry, 'retry')).toEqual({ starts: 2, ends: 1 });
    expect(await effectOf(done)).toMatchObject({ state: 'succeeded', generation: 1, is_error: false });
    expect(await effectOf(skip)).toMatchObject({ state: 'failed', generation: 1, is_error: true });
    expect((await effectOf(skip))['result']).toContain('leave it');
    expect(await effectOf(none)).toMatchObject({ state: 'unknown', generation: 1 });
    for (const [index, decision] of (['done', 'skip', 'none'] as const).entries()) {
      expect(await driver.recorder.traces(sessions[index + 1] ?? '', decision)).toEqual({ starts: 1, ends: 0 });
    }
    for (const session of [retry, done, skip]) expect(await driver.turnEnds(session)).toEqual(['end_turn']);
    expect(await driver.turnEnds(none)).toEqual(['interrupted']);
    await check(...sessions);
  });

  it('dies under a search and between commands: reading starts again, files are kept', async () => {
    const session = await driver.open([
      { tools: [bash('mkfifo /workspace/data; echo kept > /workspace/kept; echo made')] },
      { tools: [{ name: 'grep', input: { pattern: 'needle', path: '/workspace/data' } }] },
      { tools: [{ name: 'read', input: { file_path: '/workspace/kept' } }], delayMs: 500 },
      { tools: [bash(recorded('afterwards'))] },
      { text: 'all read' },
    ]);
    // The search hangs on a pipe nobody writes to; then the sandbox dies and the pipe becomes a file.
    await driver.untilSql(
      'the search runs',
      session,
      `EXISTS (SELECT 1 FROM effects e WHERE e.session_id = s.id AND e.tool = 'grep' AND e.state = 'started')`,
    );
    await driver.until('grep waits', async () => (await driver.recorder.processesOf(session)).length > 1);
    const file = path.join(await driver.recorder.workspaceOf(session), 'data');
    rmSync(file);
    writeFileSync(file, 'hay\nthe needle\n', { mode: 0o644 });
    await killSandbox(session);
    await driver.untilSql(
      'it reads',
      session,
      `EXISTS (SELECT 1 FROM effects e WHERE e.session_id = s.id AND e.tool = 'grep' AND e.state = 'succeeded')`,
    );
    await killSandbox(session);
    await driver.quiet([session]);
    const results = await driver.query<{ tool: string; state: string; result: string }>(
      'SELECT tool, state, result::text AS result FROM effects WHERE session_id = $1 ORDER BY step',
      [session],
    );
    expect(results.map(({ tool, state }) => `${tool} ${state}`)).toEqual([
      'bash succeeded',
      'grep succeeded',
      'read succeeded',
      'bash succeeded',
    ]);
    expect(results[1]?.result).toContain('the needle');
    expect(results[2]?.result).toContain('kept');
    expect(await driver.approvals(session)).toEqual([]);
    await check(session);
  });

  it('is interrupted: the whole tree of the command is killed, and the session takes the next message', async () => {
    const tree = `${recorded('tree')}; (trap "" TERM; sleep 300 & sleep 301) & setsid sleep 302 & sleep 303`;
    const session = await driver.open([{ tools: [bash(tree)] }, { text: 'never' }]);
    const sleeping = async (): Promise<number> => (await driver.recorder.processesOf(session)).length;
    await driver.ran(session, 'tree', 'ends');
    await driver.until('all four sleep', async () => (await sleeping()) >= 5);
    await driver.send(session, { type: 'user.interrupt' });
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['interrupted']);
    expect(await sleeping()).toBe(1);
    await driver.send(session, scriptMessage([{ tools: [bash(recorded('next'))] }, { text: 'next' }]));
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['interrupted', 'end_turn']);
    await check(session);
  });

  it('is terminated under a command: sandbox, keys and queue are gone, and nothing brings it back', async () => {
    const session = await driver.open([{ tools: [bash(recorded('last', 300))] }, { text: 'never' }]);
    await driver.ran(session, 'last');
    const processes = await driver.recorder.processesOf(session);
    const queued = await driver.send(session, scriptMessage([{ tools: [bash(recorded('queued'))] }]));
    expect((await driver.call('POST', `/v1/sessions/${session}/archive`)).status).toBe(200);
    await driver.untilSql('it is over', session, `s.status = 'terminated'`);
    await driver.quiet([session]);
    await driver.untilSql(
      'its sandbox is gone',
      session,
      `NOT EXISTS (SELECT 1 FROM sandboxes b WHERE b.session_id = s.id AND b.state <> 'destroyed')`,
    );
    expect(processes.filter((pid) => isRunning(pid))).toEqual([]);

    await stack.killAndRecover('worker');
    expect((await driver.send(session, scriptMessage([{ text: 'hello?' }]))).status).toBe(409);
    // As a process that knows of no end would: the input once more, the workflow once more, and the outbox's own way.
    const temporal = await driver.temporal();
    const handle = temporal.workflow.getHandle(`session/${session}`);
    const [event] = queued.body['data'] as { id: string }[];
    const message = { eventId: event?.id, kind: 'message' };
    await expect(handle.executeUpdate('submit', { args: [message], updateId: 'again' })).rejects.toThrow();
    await expect(
      temporal.workflow.start('session', {
        workflowId: `session/${session}`,
        taskQueue: 'longhaul',
        args: [{}],
        workflowIdReusePolicy: 'REJECT_DUPLICATE',
      }),
    ).rejects.toThrow(/already/i);
    await driver.query(
      `UPDATE inputs SET state = 'accepted', ended_at = NULL, reason = NULL WHERE event_id = $1 RETURNING 1`,
      [event?.id],
    );
    await driver.untilSql(
      'the outbox gave up on it',
      session,
      `NOT EXISTS (SELECT 1 FROM inputs i WHERE i.session_id = s.id AND i.ended_at IS NULL)`,
    );
    await driver.until('its workflow ended', async () => (await handle.describe()).status.name === 'COMPLETED');
    expect(await driver.recorder.traces(session, 'queued')).toEqual({ starts: 0, ends: 0 });
    expect(await driver.recorder.processesOf(session)).toEqual([]);
    await check(session);
  });
});
