import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SandboxRef } from '../../activities/sandbox/port.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { testApi, type TestApi } from '../api/support.ts';
import { BedDriver, toolset, TURNS_OVER } from '../support/bed-driver.ts';
import { bash, scriptMessage, type ScriptStep } from '../support/session-driver.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

const sha = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex');
const run = (command: string): ScriptStep[] => [{ tools: [bash(command)] }, { text: 'ok' }];

describe('files mounted into a session', { timeout: 240_000 }, () => {
  let api: TestApi;
  let bed: WorkerBed;
  let driver: BedDriver;
  let agentId: string;
  beforeAll(async () => {
    api = await testApi();
    bed = await workerBed(api);
    driver = new BedDriver(api);
    await bed.start();
    const tools = [toolset('always_allow')];
    agentId = (await api.post('/v1/agents', { name: 'Helper', model: 'scripted', tools }).expect(200)).body.id;
  });
  afterAll(async () => {
    await bed.close();
    await api.close();
  });

  const upload = async (content: Uint8Array): Promise<string> =>
    (await api.post('/v1/files').attach('file', Buffer.from(content), 'data.bin').expect(200)).body.id;
  const open = async (resources: object[], steps: ScriptStep[], config: object = {}): Promise<string> => {
    const made = await api.post('/v1/environments', { name: 'Box', config: { type: 'cloud', ...config } }).expect(200);
    const initial_events = [scriptMessage(steps)];
    const body = { agent: agentId, environment_id: made.body.id, resources, initial_events };
    const session = (await api.post('/v1/sessions', body).expect(200)).body.id as string;
    await driver.until('the turn is over', session, TURNS_OVER);
    return session;
  };
  const play = async (session: string, steps: ScriptStep[]): Promise<string> => {
    await driver.send(session, scriptMessage(steps));
    await driver.until('the turn is over', session, TURNS_OVER);
    return last(session);
  };
  /** Runs one command in a turn of its own; what it printed. */
  const say = (session: string, command: string): Promise<string> => play(session, run(command));
  /** What may be repeated: in a sandbox that is lost nobody asks what became of it. */
  const look = (session: string): Promise<string> =>
    play(session, [{ tools: [{ name: 'glob', input: { pattern: '*' } }] }, { text: 'ok' }]);
  const last = async (session: string): Promise<string> =>
    (
      await driver.one<{ text: string }>(
        `SELECT (SELECT string_agg(c->>'text', E'\\n') FROM jsonb_array_elements(payload->'content') AS c) AS text FROM events
         WHERE session_id = $1 AND type = 'agent.tool_result' ORDER BY seq DESC LIMIT 1`,
        session,
      )
    ).text;
  const events = async (session: string, type: string): Promise<Record<string, unknown>[]> => {
    const { rows } = await api.pool.query<{ payload: Record<string, unknown> }>(
      'SELECT payload FROM events WHERE session_id = $1 AND type = $2 ORDER BY seq',
      [session, type],
    );
    return rows.map(({ payload }) => payload);
  };
  const lose = async (session: string): Promise<void> => {
    const sql = 'SELECT ref FROM sandboxes WHERE session_id = $1 ORDER BY generation DESC';
    const { ref } = await driver.one<{ ref: SandboxRef }>(sql, session);
    await bed.deps.sandboxProvider('local').destroy(ref, AbortSignal.timeout(60_000));
  };

  it('are there byte for byte, those that come later too, and in the next sandbox again', async () => {
    const [first, second] = [randomBytes(2 * LIMITS.filePieceBytes + 17), randomBytes(1_000)];
    const one = await upload(first);
    const [two, empty] = [await upload(second), await upload(new Uint8Array())];
    const at = '/workspace/Prüfung (1)/data.bin';
    const session = await open(
      [
        { type: 'file', file_id: one, mount_path: at },
        { type: 'file', file_id: empty },
      ],
      run(`sha256sum < '${at}'; sha256sum < /mnt/session/uploads/${empty}`),
    );
    const both = `${sha(first)}  -\n${sha(new Uint8Array())}  -\n`;
    expect(await last(session)).toBe(both);
    const steps = await events(session, 'session.sandbox_step');
    expect(steps).toMatchObject([
      { state: 'running' },
      { state: 'done', output: `${one} is ${at}: ${first.length} bytes` },
      { state: 'running' },
      { state: 'done' },
    ]);
    expect(await events(session, 'session.sandbox_ready')).toHaveLength(1);

    const later = '/workspace/later';
    await api.post(`/v1/sessions/${session}/resources`, { type: 'file', file_id: two, mount_path: later }).expect(200);
    expect(await say(session, `sha256sum < ${later}; echo mine > own`)).toBe(
      `[sandbox: The file ${later} was added: 1000 bytes.]\n${sha(second)}  -\n`,
    );
    expect(await say(session, `cat own; echo changed > ${later}`)).toBe('mine\n');
    expect(await say(session, `cat ${later}`)).toBe('changed\n');

    await lose(session);
    expect(await look(session)).not.toContain('own');
    expect(await say(session, `sha256sum < '${at}'; sha256sum < ${later}`)).toBe(
      `${sha(first)}  -\n${sha(second)}  -\n`,
    );
  });

  it('stay as the agent left them where its files were saved', async () => {
    const [one, two] = [await upload(Buffer.from('one\n')), await upload(Buffer.from('two\n'))];
    const resources = [
      { type: 'file', file_id: one, mount_path: '/workspace/one' },
      { type: 'file', file_id: two },
    ];
    const idle = { pause_after_seconds: 600, snapshot_after_seconds: 600, destroy_after_seconds: 600 };
    const session = await open(resources, run('echo more >> one'), { idle });
    await api.pool.query(
      `UPDATE sandboxes SET idle_since = idle_since - make_interval(secs => 700) WHERE session_id = $1`,
      [session],
    );
    await api.services.temporal.client.workflow.execute('maintenance', {
      workflowId: `maintenance/test/${api.taskQueue}/${Math.random()}`,
      taskQueue: api.taskQueue,
    });
    expect(await events(session, 'session.sandbox_released')).toHaveLength(1);
    expect(await say(session, `cat one /mnt/session/uploads/${two}`)).toMatch(/saved at .*\]\none\nmore\ntwo\n$/);
  });

  it('that were deleted meanwhile are told, and the next turn goes on without them', async () => {
    const [kept, gone] = [await upload(Buffer.from('kept\n')), await upload(Buffer.from('gone\n'))];
    const session = await open([{ type: 'file', file_id: kept, mount_path: '/workspace/kept' }], run('echo own > own'));
    const added = await api.post(`/v1/sessions/${session}/resources`, { type: 'file', file_id: gone }).expect(200);
    await api.delete(`/v1/files/${gone}`).expect(200);
    // What is in the sandbox is worth more than a file that is not.
    const told = await say(session, 'cat own kept');
    expect(told).toMatch(
      new RegExp(`^\\[sandbox: The file .*/${gone} could not be added: .*deleted.*\\]\\nown\\nkept\\n$`),
    );
    expect((await events(session, 'session.sandbox_step')).at(-1)).toMatchObject({ state: 'failed' });
    expect(await events(session, 'session.sandbox_failed')).toHaveLength(0);
    expect(await say(session, 'cat own')).toBe('own\n');

    // A new sandbox does not begin without what it was to have.
    await lose(session);
    expect(await look(session)).toMatch(/could not be prepared \(file .*deleted or has expired/);
    expect(await events(session, 'session.sandbox_failed')).toMatchObject([
      { step: `file /mnt/session/uploads/${gone}`, message: expect.stringContaining(gone) },
    ]);
    await api.delete(`/v1/sessions/${session}/resources/${added.body.id}`).expect(200);
    expect(await say(session, 'cat kept')).toMatch(/kept\n$/);
  });

  it('that cannot lie where they are to are told with the reason', async () => {
    const id = await upload(Buffer.from('x'));
    const session = await open([], run('mkdir -p folder; echo file > plain'));
    for (const mount_path of ['/workspace/folder', '/workspace/plain/x']) {
      await api.post(`/v1/sessions/${session}/resources`, { type: 'file', file_id: id, mount_path }).expect(200);
      expect(await say(session, 'cat plain')).toMatch(
        new RegExp(`^\\[sandbox: The file ${mount_path} could not be added: .+\\]\\nfile\\n$`),
      );
    }
  });
});
