import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SandboxRef } from '../../activities/sandbox/port.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { testApi, type TestApi } from '../api/support.ts';
import { BedDriver, toolset, TURNS_OVER } from '../support/bed-driver.ts';
import { bash, scriptMessage, type ScriptStep } from '../support/session-driver.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

const soon = (): AbortSignal => AbortSignal.timeout(60_000);

describe('an environment', { timeout: 240_000 }, () => {
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

  const environment = async (config: object): Promise<string> =>
    (await api.post('/v1/environments', { name: 'Box', config: { type: 'cloud', ...config } }).expect(200)).body.id;
  const open = async (environmentId: string, steps: ScriptStep[]): Promise<string> => {
    const body = { agent: agentId, environment_id: environmentId, initial_events: [scriptMessage(steps)] };
    return (await api.post('/v1/sessions', body).expect(200)).body.id;
  };
  const say = async (session: string, steps: ScriptStep[]): Promise<void> => {
    await driver.send(session, scriptMessage(steps));
    await over(session);
  };
  const over = (session: string): Promise<void> => driver.until('the turn is over', session, TURNS_OVER);
  const shown = async (session: string): Promise<Record<string, unknown>> =>
    (await api.get(`/v1/sessions/${session}`).expect(200)).body.sandbox;
  /** Texts of all tool results, in order. */
  const results = async (session: string): Promise<string[]> => {
    const { rows } = await api.pool.query<{ text: string }>(
      `SELECT (SELECT string_agg(c->>'text', E'\\n') FROM jsonb_array_elements(payload->'content') AS c) AS text
       FROM events WHERE session_id = $1 AND type = 'agent.tool_result' ORDER BY seq`,
      [session],
    );
    return rows.map(({ text }) => text);
  };
  const events = async (session: string, type: string): Promise<Record<string, unknown>[]> => {
    const { rows } = await api.pool.query<{ payload: Record<string, unknown> }>(
      'SELECT payload FROM events WHERE session_id = $1 AND type = $2 ORDER BY seq',
      [session, type],
    );
    return rows.map(({ payload }) => payload);
  };
  const sweep = async (): Promise<void> => {
    await api.services.temporal.client.workflow.execute('maintenance', {
      workflowId: `maintenance/test/${api.taskQueue}/${Math.random()}`,
      taskQueue: api.taskQueue,
    });
  };
  const idleFor = (session: string, seconds: number): Promise<unknown> =>
    api.pool.query(`UPDATE sandboxes SET idle_since = idle_since - make_interval(secs => $2) WHERE session_id = $1`, [
      session,
      seconds,
    ]);
  const refOf = async (session: string): Promise<SandboxRef> =>
    (
      await driver.one<{ ref: SandboxRef }>(
        'SELECT ref FROM sandboxes WHERE session_id = $1 ORDER BY generation DESC',
        session,
      )
    ).ref;

  it('refuses what it cannot keep, and names the field', async () => {
    const refused = async (config: object, field: string): Promise<string> => {
      const { body } = await api
        .post('/v1/environments', { name: 'Box', config: { type: 'cloud', ...config } })
        .expect(400);
      expect(body.error.message).toContain(field);
      return body.error.message as string;
    };
    expect(await refused({ env: { NOTE: 'ghp_0123456789abcdefghijklmnopqrstuvwxyz' } }, 'config.env.NOTE')).toContain(
      'vault',
    );
    await refused({ env: { DB_PASSWORD: 'correct horse' } }, 'config.env.DB_PASSWORD');
    await refused({ env: { https_proxy: 'http://elsewhere' } }, 'config.env.https_proxy');
    await refused({ image: 'debian:12' }, 'config.image');
    await refused(
      { idle: { pause_after_seconds: 600, destroy_after_seconds: 60 } },
      'config.idle.destroy_after_seconds',
    );
    await refused({ repositories: [{ url: 'git@example.com:a/b.git' }] }, 'config.repositories[0].url');
    await refused({ repositories: [{ url: 'https://user:word@example.com/a/b' }] }, 'config.repositories[0].url');
    await refused(
      { repositories: [{ url: 'https://example.com/a/b', mount_path: '/workspace/../etc' }] },
      'config.repositories[0].mount_path',
    );
    const nested = [
      { url: 'https://example.com/a/b' },
      { url: 'https://example.com/a/c', mount_path: '/workspace/b/c' },
    ];
    await refused({ repositories: nested }, 'config.repositories[1].mount_path');
    await refused({ provider: 'elsewhere' }, 'config.provider');
    await refused({ resources: { memory_mb: 1 } }, 'config.resources.memory_mb');
    // What only looks a little like one is no secret.
    const env = {
      NODE_ENV: 'production',
      COMMIT: '0123456789abcdef0123456789abcdef01234567',
      URL: 'https://example.com/a',
    };
    const id = await environment({ env, resources: { memory_mb: 256 } });
    const { config } = (await api.get(`/v1/environments/${id}`).expect(200)).body;
    expect(config).toMatchObject({
      networking: { type: 'limited', allowed_hosts: [] },
      env,
      provider: 'local',
      resources: { memory_mb: 256, processes: 512 },
      idle: { pause_after_seconds: 900, snapshot_after_seconds: null, destroy_after_seconds: null, keep_memory: false },
    });
  });

  it('gives every command its variables, sets up once for all its sandboxes, and shows what is enforced', async () => {
    const script =
      'echo "made $GREETING"; head -c 8 /dev/urandom | od -An -tx1 > /workspace/made; mkdir -p ~/.local/bin';
    const id = await environment({
      env: { GREETING: 'hello' },
      setup_script: script,
      packages: { apt: ['bash'] },
    });
    const look = [{ tools: [bash('echo "$GREETING $(cat /workspace/made)"')] }, { text: 'ok' }];
    const first = await open(id, look);
    await over(first);
    const second = await open(id, look);
    await over(second);
    const [one] = await results(first);
    expect(one).toMatch(/^hello ( [0-9a-f]{2}){8}/);
    expect(await results(second)).toEqual([one]);
    const steps = async (session: string): Promise<string[]> =>
      (await events(session, 'session.sandbox_step')).map(({ step, state }) => `${String(step)} ${String(state)}`);
    expect(await steps(first)).toEqual(['packages.apt running', 'packages.apt done', 'setup running', 'setup done']);
    expect((await events(first, 'session.sandbox_step')).at(-1)).toMatchObject({
      exit_code: 0,
      output: 'made hello\n',
    });
    expect(await steps(second)).toEqual([]);
    expect(await events(second, 'session.sandbox_ready')).toHaveLength(1);
    expect(await shown(second)).toMatchObject({
      provider: 'local',
      state: 'running',
      controls: {
        network: { state: 'enforced', reason: 'no network' },
        credentials: { state: 'unavailable' },
        limits: { state: 'observed' },
        pause: { state: 'enforced' },
        snapshot: { state: 'enforced' },
      },
    });
    // The next script is another set-up.
    await api
      .post(`/v1/environments/${id}`, {
        config: { type: 'cloud', env: { GREETING: 'hi' }, setup_script: `${script} #` },
      })
      .expect(200);
    const third = await open(id, look);
    await over(third);
    expect((await results(third))[0]).toMatch(/^hi /);
    expect((await results(third))[0]?.slice(3)).not.toBe(one?.slice(6));
    // What a session began with is what it keeps.
    await say(second, look);
    expect(await results(second)).toEqual([one, one]);
  });

  it('says once what could not be installed here', async () => {
    const id = await environment({ packages: { apt: ['bash', 'no-such-package'] } });
    const session = await open(id, [{ tools: [bash('echo first')] }, { tools: [bash('echo second')] }, { text: 'ok' }]);
    await over(session);
    const [first, second] = await results(session);
    expect(first).toMatch(/^\[sandbox: Not installed, packages of apt: .*no-such-package\]\nfirst/);
    expect(second).toBe('second\n');
    // Also to the agent that begins with what was saved.
    const other = await open(id, [{ tools: [bash('echo first')] }, { text: 'ok' }]);
    await over(other);
    expect(await results(other)).toEqual([first]);
  });

  it('whose set-up fails says so, to people and to the model, and tries again in the next turn only', async () => {
    const id = await environment({ setup_script: 'echo begun; echo "the reason" >&2; exit 3' });
    const session = await open(id, [{ tools: [bash('echo never')] }, { tools: [bash('echo never')] }, { text: 'ok' }]);
    await over(session);
    expect(await driver.turnEnds(session)).toEqual(['end_turn']);
    const told = await results(session);
    expect(told).toHaveLength(2);
    for (const text of told) expect(text).toMatch(/could not be prepared \(setup\): exit code 3: [^]*the reason/);
    expect(await events(session, 'session.sandbox_failed')).toMatchObject([{ step: 'setup' }]);
    expect(await shown(session)).toMatchObject({ state: 'failed', failure: { step: 'setup' } });
    await say(session, [{ tools: [bash('echo never')] }, { text: 'ok' }]);
    expect(await events(session, 'session.sandbox_failed')).toHaveLength(2);
    const { count } = await driver.one<{ count: number }>(
      'SELECT count(*)::int AS count FROM sandboxes WHERE session_id = $1',
      session,
    );
    expect(count).toBe(2);
  });

  it('puts an idle sandbox to sleep, saves it, lets it go, and gives its files back with a word to the agent', async () => {
    const idle = { pause_after_seconds: 600, snapshot_after_seconds: 3_600, destroy_after_seconds: 7_200 };
    const id = await environment({ idle });
    const session = await open(id, [
      { tools: [bash('echo kept > /workspace/file; sleep 900 & echo ok')] },
      { text: 'ok' },
    ]);
    await over(session);
    await sweep();
    expect(await shown(session)).toMatchObject({ state: 'running' });
    await idleFor(session, 700);
    await sweep();
    expect(await shown(session)).toMatchObject({ state: 'paused', snapshot_at: null });
    await idleFor(session, 3_000);
    await sweep();
    expect((await shown(session))['snapshot_at']).not.toBeNull();
    await idleFor(session, 4_000);
    const ref = await refOf(session);
    await sweep();
    expect(await shown(session)).toMatchObject({ state: 'released' });
    expect(await bed.deps.sandboxProvider('local').get(ref, soon())).toBeNull();
    for (const type of ['paused', 'saved', 'released']) {
      expect(await events(session, `session.sandbox_${type}`)).toHaveLength(1);
    }
    await say(session, [{ tools: [bash('cat file')] }, { tools: [bash('cat file')] }, { text: 'ok' }]);
    const [, back, again] = await results(session);
    expect(back).toMatch(/^\[sandbox: .*another one.*saved at .*\]\nkept\n$/);
    expect(again).toBe('kept\n');
    expect(await events(session, 'session.sandbox_rebuilt')).toHaveLength(1);
    // Its end leaves nothing: no sandbox, no saved files.
    await api.post(`/v1/sessions/${session}/archive`).expect(200);
    await driver.until('it has ended', session, `s.status = 'terminated'`);
    await driver.until(
      'nothing is left',
      session,
      `NOT EXISTS (SELECT 1 FROM sandboxes b WHERE b.session_id = s.id AND (b.state <> 'destroyed' OR b.snapshot IS NOT NULL))`,
    );
  });

  it('rebuilds a sandbox that its provider lost, and says that nothing of it is left', async () => {
    const session = await open(await environment({}), [
      { tools: [bash('echo gone > /workspace/file')] },
      { text: 'ok' },
    ]);
    await over(session);
    const ref = await refOf(session);
    await bed.deps.sandboxProvider('local').destroy(ref, soon());
    await say(session, [{ tools: [{ name: 'glob', input: { pattern: '*' } }] }, { text: 'ok' }]);
    const [, told] = await results(session);
    expect(told).toMatch(/^\[sandbox: .*what you had written is gone/);
    expect(await events(session, 'session.sandbox_rebuilt')).toMatchObject([{ snapshot_at: null }]);
    expect(await driver.turnEnds(session)).toEqual(['end_turn', 'end_turn']);
  });

  it('lets go what was saved of a set-up when nobody has used it for long, and never while somebody begins from it', async () => {
    const config = { setup_script: 'head -c 8 /dev/urandom | od -An -tx1 > /workspace/made' };
    const id = await environment(config);
    const look = [{ tools: [bash('cat made')] }, { text: 'ok' }];
    const made = async (): Promise<[string, string | undefined]> => {
      const session = await open(id, look);
      await over(session);
      return [session, (await results(session))[0]];
    };
    const [session, first] = await made();
    const saved = async (): Promise<{ ref: SandboxRef; hash: string } | undefined> =>
      (
        await api.pool.query<{ ref: SandboxRef; hash: string }>('SELECT ref, hash FROM environment_snapshots')
      ).rows.find(({ ref }) => ref.id === ours);
    const usedBefore = (interval: string): Promise<unknown> =>
      api.pool.query(`UPDATE environment_snapshots SET last_used_at = now() - $2::interval WHERE ref->>'id' = $1`, [
        ours,
        interval,
      ]);
    const provider = bed.deps.sandboxProvider('local');
    const kept = async (): Promise<boolean> => {
      for await (const { ref } of provider.listSnapshots(bed.deps.sandboxOwner, soon()))
        if (ref.id === ours) return true;
      return false;
    };
    const newest = await api.pool.query<{ id: string }>(
      `SELECT ref->>'id' AS id FROM environment_snapshots ORDER BY created_at DESC LIMIT 1`,
    );
    const ours = newest.rows[0]?.id;
    const known = await saved();
    // Used a while ago: it stays, and what a session made of it does not matter.
    await usedBefore('13 days');
    await sweep();
    expect([await saved(), await kept()]).toEqual([known, true]);
    // Somebody was killed after it had written down what it begins from, or is at it.
    await usedBefore('15 days');
    await api.pool.query(
      `INSERT INTO sandboxes (id, session_id, generation, provider, state, lease_expires_at, start)
       VALUES ('sbx_begins', $1, 99, 'local', 'creating', now() + interval '1 hour', $2)`,
      [session, JSON.stringify({ kind: 'environment', hash: known?.hash, ref: known?.ref })],
    );
    await sweep();
    expect([await saved(), await kept()]).toEqual([known, true]);
    await api.pool.query(`UPDATE sandboxes SET state = 'destroyed' WHERE id = 'sbx_begins'`);
    // One session more of the environment, and it counts as used again.
    expect((await made())[1]).toBe(first);
    await sweep();
    expect([await saved(), await kept()]).toEqual([known, true]);
    // There are more than an installation keeps: the oldest goes, but not one that was found a moment ago.
    await api.pool.query(
      `INSERT INTO environment_snapshots (hash, provider, owner, team_id, ref, last_used_at)
       SELECT 'other ' || n, 'local', $1, 't', jsonb_build_object('id', 'other ' || n), now() + interval '1 min'
       FROM generate_series(1, $2::int) AS n`,
      [bed.deps.sandboxOwner, LIMITS.environmentSnapshots],
    );
    await sweep();
    expect([await saved(), await kept()]).toEqual([known, true]);
    await usedBefore('10 min');
    await sweep();
    expect([await saved(), await kept()]).toEqual([undefined, false]);
    await api.pool.query(`DELETE FROM environment_snapshots WHERE team_id = 't'`);
    // The next session sets up anew, and one that began from it before goes on.
    const [, other] = await made();
    expect(other).toMatch(/^( [0-9a-f]{2}){8}/);
    expect(other).not.toBe(first);
    await say(session, look);
    expect(await results(session)).toEqual([first, first]);
  });

  it('leaves no sandbox and no snapshot that no row knows, after one pass', async () => {
    const provider = bed.deps.sandboxProvider('local');
    const session = await open(await environment({}), [{ tools: [bash('true')] }, { text: 'ok' }]);
    await over(session);
    const known = await refOf(session);
    // As a worker leaves it that dies between the provider's answer and its row.
    await api.pool.query(
      `INSERT INTO sandboxes (id, session_id, generation, provider, state, lease_expires_at, destroyed_at)
       VALUES ('sbx_died', $1, 99, 'local', 'destroyed', now(), now())`,
      [session],
    );
    const spec = { env: {}, memoryBytes: 2 ** 28, diskBytes: 2 ** 26, pids: 32, cpus: 1, ttlMs: 60_000 };
    const stray = await provider.create(
      { owner: bed.deps.sandboxOwner, labels: { sandbox: 'sbx_died' }, ...spec },
      'stray',
      soon(),
    );
    // And one that sleeps in the record, but runs: its row was written first.
    await api.pool.query(`UPDATE sandboxes SET state = 'paused' WHERE session_id = $1 AND generation = 1`, [session]);
    await sweep();
    expect(await provider.get(stray, soon())).toBeNull();
    expect((await provider.get(known, soon()))?.state).toBe('paused');
  });
});
