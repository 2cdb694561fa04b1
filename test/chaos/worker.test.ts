import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { bash, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

describe('the worker is killed', { timeout: STACK_TEST_MS }, () => {
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
  const asked = (sessionId: string): Promise<{ step: number; asked: number; billed: number }[]> =>
    driver.query('SELECT step, asked, billed FROM scripted_calls WHERE session_id = $1 ORDER BY step', [sessionId]);
  const killWorker = (): Promise<void> => stack.killAndRecover('worker');

  it('in the middle of a model call, a command and a question, all at once', async () => {
    const streaming = await driver.open([{ text: 'a long answer in pieces', chunks: 40, chunkMs: 100 }]);
    const running = await driver.open([{ tools: [bash(recorded('running', 4))] }, { text: 'ran' }]);
    const asking = await driver.open([{ tools: [bash(recorded('asking'))] }, { text: 'ran' }], {
      policy: 'always_ask',
    });
    const approval = await driver.pendingApproval(asking);
    await driver.ran(running, 'running');
    await driver.untilSql(
      'the model was asked',
      streaming,
      `EXISTS (SELECT 1 FROM scripted_calls c WHERE c.session_id = s.id)`,
    );
    await killWorker();
    expect(await driver.recorder.traces(asking, 'asking')).toEqual({ starts: 0, ends: 0 });
    expect((await driver.decide(approval.id, 'allow')).status).toBe(200);
    await driver.quiet([streaming, running, asking]);

    expect(await driver.recorder.traces(running, 'running')).toEqual({ starts: 1, ends: 1 });
    expect(await driver.recorder.traces(asking, 'asking')).toEqual({ starts: 1, ends: 1 });
    expect(await asked(streaming)).toEqual([{ step: 0, asked: 1, billed: 1 }]);
    for (const id of [streaming, running, asking]) expect(await driver.turnEnds(id)).toEqual(['end_turn']);
    await check(streaming, running, asking);
  });

  it('between the end of a command and its record', async () => {
    // Twelve commands that end 40 ms apart; the worker dies while they do.
    const ends = Array.from({ length: 12 }, (_, index) => ({ key: `end${index}`, seconds: 2 + index * 0.04 }));
    const sessions = await Promise.all(
      ends.map(({ key, seconds }) => driver.open([{ tools: [bash(recorded(key, seconds))] }, { text: 'over' }])),
    );
    const middle = sessions[5] ?? '';
    await driver.ran(middle, 'end5', 'ends');
    await killWorker();
    await driver.quiet(sessions);
    for (const [index, { key }] of ends.entries()) {
      expect(await driver.recorder.traces(sessions[index] ?? '', key), key).toEqual({ starts: 1, ends: 1 });
    }
    await check(...sessions);
  });

  it('again and again while one answer streams: it is asked for and paid once', async () => {
    const session = await driver.open([{ text: 'slow', chunks: 100, chunkMs: 150 }, { text: 'unused' }]);
    for (let kill = 0; kill < 3; kill += 1) {
      await driver.untilSql('the call runs', session, `EXISTS (SELECT 1 FROM model_calls c WHERE c.session_id = s.id)`);
      await killWorker();
    }
    await driver.quiet([session]);
    expect(await asked(session)).toEqual([{ step: 0, asked: 1, billed: 1 }]);
    expect(await driver.turnEnds(session)).toEqual(['end_turn']);
    await check(session);
  });

  it('and an interrupt comes while nobody lives to hear it', async () => {
    const tool = await driver.open([{ tools: [bash(recorded('doomed', 60))] }, { text: 'never' }]);
    const model = await driver.open([{ text: 'slow', chunks: 100, chunkMs: 600 }]);
    const asking = await driver.open([{ tools: [bash(recorded('late'))] }], { policy: 'always_ask' });
    const approval = await driver.pendingApproval(asking);
    await driver.ran(tool, 'doomed');
    await driver.untilSql('the call runs', model, `EXISTS (SELECT 1 FROM model_calls c WHERE c.session_id = s.id)`);
    driver.kill('worker');
    // The yes is accepted and the interrupt after it takes its question away: the yes still gets its terminal state.
    expect((await driver.decide(approval.id, 'allow')).status).toBe(200);
    const all = [tool, model, asking];
    for (const id of all) expect((await driver.send(id, { type: 'user.interrupt' })).status).toBe(200);
    await driver.quiet(all);
    for (const id of all) expect(await driver.turnEnds(id)).toEqual(['interrupted']);
    expect(await driver.recorder.traces(tool, 'doomed')).toEqual({ starts: 1, ends: 0 });
    expect(await driver.recorder.traces(asking, 'late')).toEqual({ starts: 0, ends: 0 });
    await check(...all);
  });

  it('while it stores the outputs of a turn: each is a file once, whole', async () => {
    const make = 'cd /mnt/session/outputs && seq 1 12000000 > numbers && echo small > small && sha256sum < numbers';
    const session = await driver.open([{ tools: [bash(make)] }, { text: 'made' }]);
    await driver.untilSql(
      'it is half stored',
      session,
      `EXISTS (SELECT 1 FROM files f JOIN file_pieces p ON p.file_id = f.id
               WHERE f.session_id = s.id AND f.path = 'numbers' AND f.state = 'writing')`,
    );
    await killWorker();
    await driver.quiet([session]);
    const stored = await driver.query<{ path: string; sha256: string }>(
      `SELECT path, sha256 FROM files WHERE session_id = $1 AND state = 'ready' ORDER BY path`,
      [session],
    );
    const sums = await driver.query<{ content: string }>(
      `SELECT result->'content'->0->>'text' AS content FROM effects WHERE session_id = $1`,
      [session],
    );
    expect(stored.map(({ path }) => path)).toEqual(['numbers', 'small']);
    expect(sums[0]?.content).toContain(stored[0]?.sha256);
    const told = await driver.query(`SELECT 1 FROM events WHERE session_id = $1 AND type = 'session.artifact_stored'`, [
      session,
    ]);
    expect(told).toHaveLength(2);
    await check(session);
  });

  it('while it mounts a file: it is there whole before the first command runs', async () => {
    const content = randomBytes(40 * 1024 * 1024);
    const form = new FormData();
    form.append('file', new File([content], 'data.bin'));
    const headers = { authorization: `Bearer ${stack.key}` };
    const uploaded = await fetch(`${stack.url}/v1/files`, { method: 'POST', headers, body: form });
    const { id: file } = (await uploaded.json()) as { id: string };
    const look = [
      { tools: [bash(`sha256sum < /mnt/session/uploads/${file}; ls /mnt/session/uploads`)] },
      { text: 'ok' },
    ];
    const resources = [{ type: 'file', file_id: file }];
    const opened = await driver.call('POST', '/v1/sessions', { ...(await driver.sessionBody(look)), resources });
    const session = opened.body.id ?? '';
    await driver.untilSql(
      'it is being mounted',
      session,
      `EXISTS (SELECT 1 FROM events e WHERE e.session_id = s.id AND e.type = 'session.sandbox_step')`,
    );
    driver.kill('worker');
    const steps = `SELECT payload->>'state' AS state FROM events
      WHERE session_id = $1 AND type = 'session.sandbox_step' ORDER BY seq`;
    expect(await driver.query(steps, [session])).toEqual([{ state: 'running' }]);
    await driver.quiet([session]);
    expect(await driver.query(steps, [session])).toEqual([{ state: 'running' }, { state: 'done' }]);
    const [told] = await driver.query<{ text: string }>(
      `SELECT result->'content'->0->>'text' AS text FROM effects WHERE session_id = $1`,
      [session],
    );
    expect(told?.text).toBe(`${createHash('sha256').update(content).digest('hex')}  -\n${file}\n`);
    expect(await driver.query('SELECT 1 FROM sandboxes WHERE session_id = $1', [session])).toHaveLength(1);
    await check(session);
  });
});
