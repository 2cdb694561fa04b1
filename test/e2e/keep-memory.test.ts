import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stopAllSandboxes } from '../../activities/sandbox/index.ts';
import type { SandboxRef } from '../../activities/sandbox/port.ts';
import { testApi, type TestApi } from '../api/support.ts';
import { BedDriver, toolset, TURNS_OVER } from '../support/bed-driver.ts';
import { makeBed, SANDBOX_MODES, type SandboxBed } from '../support/sandbox-modes.ts';
import { bash, scriptMessage, type ScriptStep } from '../support/session-driver.ts';
import { eventually } from '../support/stack.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

const LOOK = 'kill -0 "$(cat pid)" 2>/dev/null && echo alive || echo gone';
const BEGIN = `nohup sleep 3600 > /dev/null 2>&1 & echo $! > pid; ${LOOK}`;
const LOST = /^\[sandbox: .*memory could not be kept.*no process you started before runs any more\.\]\ngone\n$/;

// Root has control groups that freeze; an ordinary user has none, so there pauses keep files only.
describe.each(SANDBOX_MODES)('a sandbox that is to keep its memory, $name', { timeout: 300_000 }, (mode) => {
  let api: TestApi;
  let bed: WorkerBed;
  let sandboxes: SandboxBed;
  let driver: BedDriver;
  let keeps: boolean;
  beforeAll(async () => {
    api = await testApi();
    bed = await workerBed(api);
    sandboxes = makeBed(mode);
    const { provider } = sandboxes;
    Object.assign(bed.deps, { sandboxProvider: () => provider, sandboxProviders: () => [provider] });
    keeps = (await provider.capabilities()).pause === 'memory';
    driver = new BedDriver(api);
    await bed.start();
  });
  afterAll(async () => {
    await bed?.close();
    await sandboxes?.close();
    await api?.close();
  });

  const sleep = async (session: string): Promise<void> => {
    await api.pool.query(
      `UPDATE sandboxes SET idle_since = idle_since - interval '700 s' WHERE session_id = $1 AND state = 'running'`,
      [session],
    );
    await api.services.temporal.client.workflow.execute('maintenance', {
      workflowId: `maintenance/test/${api.taskQueue}/${Math.random()}`,
      taskQueue: api.taskQueue,
    });
    expect((await api.get(`/v1/sessions/${session}`).expect(200)).body.sandbox).toMatchObject({ state: 'paused' });
  };
  /** What the last call of the next turn gave. */
  const run = async (session: string, ...commands: string[]): Promise<string[]> => {
    const steps: ScriptStep[] = [...commands.map((command) => ({ tools: [bash(command)] })), { text: 'ok' }];
    await driver.send(session, scriptMessage(steps));
    await driver.until('the turn is over', session, TURNS_OVER);
    return (await results(session)).slice(-commands.length);
  };
  const results = async (session: string): Promise<string[]> => {
    const { rows } = await api.pool.query<{ text: string }>(
      `SELECT (SELECT string_agg(c->>'text', E'\\n') FROM jsonb_array_elements(payload->'content') AS c) AS text FROM events
       WHERE session_id = $1 AND type = 'agent.tool_result' ORDER BY seq`,
      [session],
    );
    return rows.map(({ text }) => text);
  };

  it('has its processes after the pause, or its agent is told that they are gone', async () => {
    const config = { type: 'cloud', idle: { pause_after_seconds: 600, keep_memory: true } };
    const environment = (await api.post('/v1/environments', { name: 'Box', config }).expect(200)).body.id as string;
    const agent = { name: 'Helper', model: 'scripted', tools: [toolset('always_allow')] };
    const agentId = (await api.post('/v1/agents', agent).expect(200)).body.id as string;
    const initial = [scriptMessage([{ tools: [bash(BEGIN)] }, { text: 'ok' }])];
    const body = { agent: agentId, environment_id: environment, initial_events: initial };
    const session = (await api.post('/v1/sessions', body).expect(200)).body.id as string;
    await driver.until('the turn is over', session, TURNS_OVER);
    expect(await results(session)).toEqual(['alive\n']);

    await sleep(session);
    const events = await api.pool.query<{ keeps: boolean }>(
      `SELECT (payload->>'keeps_memory')::boolean AS keeps FROM events WHERE session_id = $1 AND type = 'session.sandbox_paused'`,
      [session],
    );
    expect(events.rows).toEqual([{ keeps }]);
    const [first, again] = await run(session, LOOK, LOOK);
    // Told once.
    if (keeps) expect([first, again]).toEqual(['alive\n', 'alive\n']);
    else expect([first, again]).toEqual([expect.stringMatching(LOST), 'gone\n']);

    // Where it could be kept, it can still be lost: with the machine, or a stop of the worker.
    expect(await run(session, BEGIN)).toEqual(['alive\n']);
    await sleep(session);
    const { ref } = await driver.one<{ ref: SandboxRef }>('SELECT ref FROM sandboxes WHERE session_id = $1', session);
    stopAllSandboxes(sandboxes.rootDir);
    const state = keeps ? 'stopped' : 'paused';
    await eventually(`it is ${state}`, async () => {
      return (await sandboxes.provider.get(ref, AbortSignal.timeout(60_000)))?.state === state;
    });
    expect(await run(session, LOOK, LOOK)).toEqual([expect.stringMatching(LOST), 'gone\n']);
  });
});
