import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { bash, scriptMessage, SessionDriver, STACK_TEST_MS, type ScriptStep } from '../support/session-driver.ts';
import { isRunning, startStack, type TestStack } from '../support/stack.ts';

const isListening = (pid: number): boolean =>
  // Port 3128 of its own network, in the state of a listener.
  readFileSync(`/proc/${pid}/net/tcp`, 'utf8')
    .split('\n')
    .some((line) => /:0C38 .* 0A /.test(line));

interface Ref {
  id: string;
}

describe('worker or broker are killed around a sandbox', { timeout: STACK_TEST_MS }, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  beforeAll(async () => {
    // The sweep runs when a test asks for it.
    stack = await startStack({ env: { LONGHAUL_MAINTENANCE_EVERY_MS: '86400000' } });
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver?.close();
    await stack?.stop();
  });

  const environment = async (config: object): Promise<string> => {
    const { status, body } = await driver.call('POST', '/v1/environments', {
      name: 'chaos',
      config: { type: 'cloud', ...config },
    });
    expect([status, body.error]).toEqual([200, undefined]);
    return body.id ?? '';
  };
  const open = async (environmentId: string, steps: ScriptStep[]): Promise<string> => {
    const body = { ...(await driver.sessionBody(steps)), environment_id: environmentId };
    return (await driver.call('POST', '/v1/sessions', body)).body.id ?? '';
  };
  const sweep = async (): Promise<void> => {
    const temporal = await driver.temporal();
    await temporal.workflow.execute('maintenance', {
      workflowId: `maintenance/${Math.random()}`,
      taskQueue: 'longhaul',
    });
  };
  const firstProcess = async (session: string): Promise<number> => (await driver.recorder.processesOf(session))[0] ?? 0;
  const reaches = (session: string): Promise<void> =>
    driver.until('the broker listens in it', async () => {
      const pid = await firstProcess(session);
      return pid !== 0 && isRunning(pid) && isListening(pid);
    });
  /** One pass leaves nothing that no row wants, and nothing without an end of its lease. */
  const noOrphans = async (): Promise<void> => {
    await sweep();
    const live = await driver.query<{ ref: Ref | null; lease: boolean }>(
      `SELECT ref, lease_expires_at IS NOT NULL AS lease FROM sandboxes WHERE state <> 'destroyed'`,
    );
    expect(live.every(({ lease }) => lease)).toBe(true);
    const known = new Set(live.map(({ ref }) => ref?.id));
    const there = driver.recorder.sandboxIds();
    expect(there.filter((id) => !known.has(id))).toEqual([]);
  };
  const check = async (...sessions: string[]): Promise<void> => {
    const { query, recorder } = driver;
    const temporal = await driver.temporal();
    for (const session of sessions) await checkInvariants(query, session, { recorder, temporal });
  };

  it('in the middle of a set-up: it goes on, runs once, and is saved for the next', async () => {
    const marks = 'echo begun >> /workspace/marks; sleep 3; echo ended >> /workspace/marks';
    const id = await environment({ setup_script: marks });
    const session = await open(id, [{ tools: [bash(`cat marks; ${recorded('after')}`)] }, { text: 'ok' }]);
    await driver.untilSql(
      'the set-up runs',
      session,
      `EXISTS (SELECT 1 FROM events e WHERE e.session_id = s.id AND e.type = 'session.sandbox_step')`,
    );
    await Promise.all([stack.killAndRecover('worker'), stack.killAndRecover('egress')]);
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['end_turn']);
    const told = await driver.query<{ text: string }>(
      `SELECT result->'content'->0->>'text' AS text FROM effects WHERE session_id = $1`,
      [session],
    );
    expect(told).toEqual([{ text: 'begun\nended\n' }]);
    expect(await driver.recorder.traces(session, 'after')).toEqual({ starts: 1, ends: 1 });
    const generations = await driver.query<{ count: number }>(
      'SELECT count(*)::int AS count FROM sandboxes WHERE session_id = $1',
      [session],
    );
    expect(generations).toEqual([{ count: 1 }]);
    await reaches(session);
    const next = await open(id, [{ tools: [bash('cat marks')] }, { text: 'ok' }]);
    await driver.quiet([next]);
    expect((await driver.recorder.traces(next, 'after')).starts).toBe(0);
    await check(session, next);
    await noOrphans();
  });

  it('while many are made: each session gets one, and runs its command once', async () => {
    const id = await environment({});
    const sessions = await Promise.all(
      Array.from({ length: 6 }, (_, index) => open(id, [{ tools: [bash(recorded(`made${index}`))] }, { text: 'ok' }])),
    );
    await driver.until('one is being made', async () => {
      const [row] = await driver.query<{ some: boolean }>(
        'SELECT EXISTS (SELECT 1 FROM sandboxes WHERE session_id = ANY($1)) AS some',
        [sessions],
      );
      return row?.some === true;
    });
    await Promise.all([stack.killAndRecover('worker'), stack.killAndRecover('egress')]);
    await driver.quiet(sessions);
    for (const [index, session] of sessions.entries()) {
      expect(await driver.recorder.traces(session, `made${index}`)).toEqual({ starts: 1, ends: 1 });
      await reaches(session);
    }
    await check(...sessions);
    await noOrphans();
  });

  it('under a command: it runs on, and the broker listens again', async () => {
    const session = await driver.open([{ tools: [bash(recorded('long', 4))] }, { text: 'ok' }]);
    await driver.ran(session, 'long');
    await reaches(session);
    await Promise.all([stack.killAndRecover('worker'), stack.killAndRecover('egress')]);
    await driver.quiet([session]);
    expect(await driver.recorder.traces(session, 'long')).toEqual({ starts: 1, ends: 1 });
    await reaches(session);
    await check(session);
    await noOrphans();
  });

  it('while idle sandboxes are put to sleep and saved: files stay, nothing runs, and the next command finds them', async () => {
    const idle = { pause_after_seconds: 60, snapshot_after_seconds: 120 };
    const id = await environment({ idle });
    const write = [{ tools: [bash(`head -c 20000000 /dev/urandom > big; ${recorded('first')}`)] }, { text: 'ok' }];
    const sessions = await Promise.all([0, 1, 2].map(() => open(id, write)));
    await driver.quiet(sessions);
    await driver.query(
      `UPDATE sandboxes SET idle_since = now() - interval '200 s' WHERE session_id = ANY($1) RETURNING id`,
      [sessions],
    );
    const swept = sweep();
    await driver.until('one is being saved or sleeps', async () => {
      const [row] = await driver.query<{ some: boolean }>(
        `SELECT EXISTS (SELECT 1 FROM sandboxes WHERE session_id = ANY($1) AND state = 'paused') AS some`,
        [sessions],
      );
      return row?.some === true;
    });
    driver.kill('worker');
    // The sweep's own activity is repeated by the next worker.
    await swept;
    await sweep();
    const rows = await driver.query<{ state: string; saved: boolean }>(
      'SELECT state, snapshot IS NOT NULL AS saved FROM sandboxes WHERE session_id = ANY($1)',
      [sessions],
    );
    expect(rows).toEqual(sessions.map(() => ({ state: 'paused', saved: true })));
    for (const session of sessions) expect(await driver.recorder.processesOf(session)).toEqual([]);
    for (const session of sessions) {
      await driver.send(
        session,
        scriptMessage([{ tools: [bash(`test -s big && ${recorded('second')}`)] }, { text: 'ok' }]),
      );
    }
    await driver.quiet(sessions);
    for (const session of sessions) {
      for (const key of ['first', 'second']) {
        expect(await driver.recorder.traces(session, key)).toEqual({ starts: 1, ends: 1 });
      }
      await reaches(session);
    }
    await check(...sessions);
    await noOrphans();
  });

  it('at the end of a session: nothing of it is left after one pass', async () => {
    const session = await driver.open([
      { tools: [bash(`${recorded('once')}; nohup sleep 600 > /dev/null 2>&1 &`)] },
      { text: 'ok' },
    ]);
    await driver.quiet([session]);
    await driver.ran(session, 'once', 'ends');
    const processes = await driver.recorder.processesOf(session);
    expect(processes.length).toBeGreaterThan(1);
    driver.kill('egress');
    expect((await driver.call('POST', `/v1/sessions/${session}/archive`)).status).toBe(200);
    driver.kill('worker');
    await driver.untilSql('it has ended', session, `s.status = 'terminated'`);
    await driver.untilSql(
      'its sandbox is gone',
      session,
      `NOT EXISTS (SELECT 1 FROM sandboxes b WHERE b.session_id = s.id AND (b.state <> 'destroyed' OR b.egress_open))`,
    );
    expect(processes.filter(isRunning)).toEqual([]);
    const handle = (await driver.temporal()).workflow.getHandle(`session/${session}`);
    await driver.until('its workflow ended', async () => (await handle.describe()).status.name === 'COMPLETED');
    await check(session);
    await noOrphans();
  });
});
