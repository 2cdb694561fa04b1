import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { McpEndpoint } from '../../activities/harness/port.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import { revokeSessionTokens } from '../../db/queries/session-tokens.ts';
import { insertSkill } from '../../db/queries/skills.ts';
import { makeAgent, testApi, type TestApi } from '../api/support.ts';
import { FakeHarness, fakeMessage } from '../doubles/harness.ts';
import { ASKING, BED_PATIENCE_MS, BedDriver, TURNS_OVER, toolset } from '../support/bed-driver.ts';
import { scriptMessage } from '../support/session-driver.ts';
import { eventually } from '../support/stack.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

let api: TestApi;
let bed: WorkerBed;
let driver: BedDriver;
let harness: FakeHarness;
let server: Server;

beforeAll(async () => {
  api = await testApi();
  server = createServer(api.app).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  bed = await workerBed(api);
  Object.assign(bed.deps.harness, { apiUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  driver = new BedDriver(api);
  await bed.start();
}, BED_PATIENCE_MS);
afterAll(async () => {
  await bed.close();
  server.closeAllConnections();
  server.close();
  await api.close();
}, BED_PATIENCE_MS);
beforeEach(() => {
  harness = new FakeHarness();
  bed.deps.harness.driver = () => harness;
  bed.deps.harness.holdMs = 600_000;
});

interface Opened {
  session: string;
  mcp: McpEndpoint;
  hook: McpEndpoint | { url: string; headers: Record<string, string> };
  /** Ends the turn. */
  end(): Promise<void>;
}

/** A session whose harness is in the middle of its turn: this test plays what it does over MCP. */
async function open(policy: 'always_allow' | 'always_ask' = 'always_allow', more: object = {}): Promise<Opened> {
  const { agentId, environmentId } = await makeAgent(api, { tools: [toolset(policy)], ...more });
  await api.pool.query(
    `UPDATE agent_versions SET definition = definition || '{"harness":"acp","placement":"inline"}' WHERE agent_id = $1`,
    [agentId],
  );
  const events = [fakeMessage([{ wait: 'the test' }, { say: 'over' }])];
  const made = await api
    .post('/v1/sessions', { agent: agentId, environment_id: environmentId, initial_events: events })
    .expect(200);
  const session = made.body.id as string;
  const stored = () => [...harness.stored].find(([, { spec }]) => spec.sessionId === session);
  await eventually('the turn runs', () => harness.running.has(stored()?.[0] ?? ''), BED_PATIENCE_MS);
  const spec = stored()?.[1].spec;
  const [mcp] = spec?.mcpServers ?? [];
  if (mcp === undefined || spec?.hook === undefined) throw new Error('the harness was given no endpoints');
  return {
    session,
    mcp,
    hook: spec.hook,
    end: async () => {
      harness.gate('the test').resolve();
      await driver.until('its turns are over', session, TURNS_OVER);
    },
  };
}

async function connect({ mcp }: Opened): Promise<Client> {
  const client = new Client({ name: 'test', version: '1' });
  const requestInit = { headers: mcp.headers };
  await client.connect(new StreamableHTTPClientTransport(new URL(mcp.url), { requestInit }));
  return client;
}

const textOf = (answer: { content?: unknown }): string =>
  (answer.content as { text: string }[]).map(({ text }) => text).join('');

async function askHook({ hook }: Opened, tool: string, input: object, id: string): Promise<Record<string, unknown>> {
  const body = { hook_event_name: 'PreToolUse', tool_name: tool, tool_input: input, tool_use_id: id };
  const answer = await fetch(hook.url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...hook.headers },
    body: JSON.stringify(body),
  });
  const { hookSpecificOutput } = (await answer.json()) as { hookSpecificOutput: Record<string, unknown> };
  return hookSpecificOutput;
}

const effects = async (session: string): Promise<{ tool: string; kind: string; state: string }[]> =>
  (
    await api.pool.query<{ tool: string; kind: string; state: string }>(
      'SELECT tool, kind, state FROM effects WHERE session_id = $1 ORDER BY turn, step',
      [session],
    )
  ).rows;

async function decide(session: string, decision: object): Promise<void> {
  await driver.until('it asks', session, ASKING);
  const { rows } = await api.pool.query<{ id: string }>(
    `SELECT id FROM approvals WHERE session_id = $1 AND state = 'pending'`,
    [session],
  );
  await api.post(`/v1/approvals/${rows[0]?.id ?? ''}/decide`, decision).expect(200);
}

describe('tools over MCP', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('runs a call in the sandbox, as an effect, and answers a repeated one from the record', async () => {
    const opened = await open();
    const client = await connect(opened);
    const args = { command: 'echo once >> count; wc -l < count' };
    const call = { name: 'bash', arguments: args, _meta: { 'claudecode/toolUseId': 'toolu_the_same' } };
    expect(textOf(await client.callTool(call))).toBe('1\n');
    expect(textOf(await client.callTool(call))).toBe('1\n');
    // Another call of the same arguments is another call.
    expect(textOf(await client.callTool({ name: 'bash', arguments: args }))).toBe('2\n');
    await client.close();
    await opened.end();
    expect((await effects(opened.session)).map(({ state }) => state)).toEqual(['succeeded', 'succeeded']);
  });

  it('takes an id that comes again after its result for another call: some models count anew', async () => {
    const opened = await open();
    const client = await connect(opened);
    // As codex tells it; what the database cannot hold is no failure of the call.
    const call = {
      name: 'bash',
      arguments: { command: 'echo once >> count; wc -l < count' },
      _meta: { callId: 'call_counted\0_1' },
    };
    expect(textOf(await client.callTool(call))).toBe('1\n');
    expect(textOf(await client.callTool(call))).toBe('1\n');
    await api.pool.query('UPDATE harness_calls SET delivered_at = now() WHERE session_id = $1', [opened.session]);
    expect(textOf(await client.callTool(call))).toBe('2\n');
    expect(textOf(await client.callTool(call))).toBe('2\n');
    await client.close();
    await opened.end();
    expect(await effects(opened.session)).toHaveLength(2);
  });

  it('asks a person and waits; who hangs up meanwhile finds the result when it asks again', async () => {
    const opened = await open('always_ask');
    const client = await connect(opened);
    const call = {
      name: 'bash',
      arguments: { command: 'echo yes >> asked; wc -l < asked' },
      _meta: { 'claudecode/toolUseId': 'toolu_asked' },
    };
    const hungUp = new AbortController();
    const first = client.callTool(call, { signal: hungUp.signal });
    const refused = expect(first).rejects.toThrow();
    await driver.until('it asks', opened.session, ASKING);
    hungUp.abort(new Error('hung up'));
    await refused;
    await client.close();
    await decide(opened.session, { decision: 'allow' });
    const again = await connect(opened);
    expect(textOf(await again.callTool(call))).toBe('1\n');
    await again.close();
    await opened.end();
    expect(await effects(opened.session)).toHaveLength(1);
  });

  it('lets go of who has hung up, however many', async () => {
    const opened = await open('always_ask');
    const call = { name: 'bash', arguments: { command: 'true' }, _meta: { 'claudecode/toolUseId': 'toolu_many' } };
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: call });
    const headers = {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...opened.mcp.headers,
    };
    for (let asked = 0; asked < LIMITS.mcpParallel * 2; asked += 1) {
      await eventually('there is room', async () => {
        const hangUp = new AbortController();
        const answer = await fetch(opened.mcp.url, { method: 'POST', headers, body, signal: hangUp.signal });
        hangUp.abort();
        return answer.status === 200;
      });
    }
    await decide(opened.session, { decision: 'deny', message: 'no' });
    const client = await connect(opened);
    expect(textOf(await client.callTool(call))).toBe('no');
    await client.close();
    await opened.end();
    expect(await effects(opened.session)).toHaveLength(1);
  });

  it('asks people, tells them of issues, and lists files, with tools of the platform', async () => {
    const opened = await open();
    const client = await connect(opened);
    const asked = client.callTool({
      name: 'request_approval',
      arguments: { title: 'Pay 3?', details: 'For the shop.', arguments: { amount: 3 } },
    });
    await decide(opened.session, {
      decision: 'allow',
      message: 'less',
      input: { title: 'Pay 3?', details: 'For the shop.', arguments: { amount: 2 } },
    });
    const yes = await asked;
    expect(yes.isError).not.toBe(true);
    expect(textOf(yes)).toMatch(/Approved.*less.*\{"amount":2\}/s);
    const second = client.callTool({ name: 'request_approval', arguments: { title: 'And now?' } });
    await decide(opened.session, { decision: 'deny', message: 'too late' });
    const no = await second;
    expect(no).toMatchObject({ isError: true });
    expect(textOf(no)).toContain('too late');
    expect(textOf(await client.callTool({ name: 'list_artifacts' }))).toMatch(/No files/);
    await client.callTool({ name: 'report_issue', arguments: { title: 'The shop is closed', severity: 'error' } });
    expect(textOf(await client.callTool({ name: 'report_issue', arguments: { titel: 'x' } }))).toMatch(/title/);
    await client.close();
    await opened.end();
    const { rows } = await api.pool.query(
      `SELECT payload->>'title' AS title, payload->>'severity' AS severity FROM events
       WHERE session_id = $1 AND type = 'session.issue_reported'`,
      [opened.session],
    );
    expect(rows).toEqual([{ title: 'The shop is closed', severity: 'error' }]);
  });

  it('answers a call that waits with an error when the turn ends, and refuses a token that was revoked', async () => {
    const opened = await open('always_ask');
    const client = await connect(opened);
    const waiting = client.callTool({ name: 'bash', arguments: { command: 'true' } });
    await driver.until('it asks', opened.session, ASKING);
    await driver.send(opened.session, { type: 'user.interrupt' });
    expect(await waiting).toMatchObject({ isError: true });
    await driver.until('its turns are over', opened.session, TURNS_OVER);
    await revokeSessionTokens(api.pool, opened.session);
    await expect(client.listTools()).rejects.toThrow();
    await client.close().catch(() => undefined);
  });

  it('keeps sessions apart: a token acts in its own session only', async () => {
    const one = await open();
    const other = await open();
    const client = await connect(other);
    await client.callTool({ name: 'bash', arguments: { command: 'true' } });
    await client.close();
    await one.end();
    await other.end();
    expect(await effects(one.session)).toEqual([]);
    expect(await effects(other.session)).toHaveLength(1);
  });
});

describe('skills', { timeout: BED_PATIENCE_MS * 2 }, () => {
  const files = [
    { path: 'SKILL.md', content: Buffer.from('---\nname: tea\ndescription: Makes tea.\n---\nBoil water.') },
    { path: 'kinds.md', content: Buffer.from('Green.') },
  ];

  async function makeSkill(): Promise<{ type: 'custom'; skill_id: string; version: string }> {
    const owner = { teamId: 'team-a', createdBy: 'user:ada' };
    const content = { name: 'tea', displayName: 'Tea', description: 'Makes tea.', files };
    const made = await withTransaction(api.pool, (tx) => insertSkill(tx, owner, content));
    return { type: 'custom', skill_id: made.id, version: made.latestVersionId };
  }

  it('are given to a harness as folders, and told to models that have no way to read those', async () => {
    const skills = [await makeSkill()];
    const opened = await open('always_allow', { skills });
    const spec = [...harness.stored.values()].find((stored) => stored.spec.sessionId === opened.session)?.spec;
    expect(spec?.skills).toEqual([{ name: 'tea', files }]);
    expect(spec?.systemPrompt).toMatch(/read_skill.*\n- tea: Makes tea\.$/s);
    const client = await connect(opened);
    const read = async (args: object): Promise<string> =>
      textOf(await client.callTool({ name: 'read_skill', arguments: { ...args } }));
    expect(await read({ name: 'tea' })).toMatch(/Boil water\.\n\n\[Other files: kinds\.md\]$/);
    expect(await read({ name: 'tea', path: 'kinds.md' })).toBe('Green.');
    expect(await read({ name: 'tea', path: '../other' })).toMatch(/no file/);
    expect(await read({ name: 'coffee' })).toMatch(/no skill/);
    await client.close();
    await opened.end();
  });

  it('are read by the native loop, too', async () => {
    const { agentId, environmentId } = await makeAgent(api, { skills: [await makeSkill()] });
    const steps = [{ tools: [{ name: 'read_skill', input: { name: 'tea' } }] }, { text: 'I read: {{lastToolResult}}' }];
    const made = await api
      .post('/v1/sessions', { agent: agentId, environment_id: environmentId, initial_events: [scriptMessage(steps)] })
      .expect(200);
    const session = made.body.id as string;
    await driver.until('its turns are over', session, TURNS_OVER);
    const said = await driver.one<{ text: string }>(
      `SELECT payload::text AS text FROM events WHERE session_id = $1 AND type = 'agent.message'`,
      session,
    );
    expect(said.text).toContain('Boil water.');
  });
});

describe('the hook of Claude Code', { timeout: BED_PATIENCE_MS * 2 }, () => {
  it('lets what is allowed begin, once and again under its id', async () => {
    const opened = await open();
    const first = await askHook(opened, 'Bash', { command: 'ls' }, 'toolu_own');
    expect(first).toEqual({ hookEventName: 'PreToolUse', permissionDecision: 'allow' });
    expect(await askHook(opened, 'Bash', { command: 'ls' }, 'toolu_own')).toEqual(first);
    expect(await effects(opened.session)).toEqual([{ tool: 'Bash', kind: 'harness', state: 'started' }]);
    await opened.end();
  });

  it('defers at once while a person is asked, then gives the decision with changed arguments', async () => {
    const opened = await open('always_ask');
    const ask = (): Promise<object> => askHook(opened, 'Bash', { command: 'rm -r /' }, 'toolu_asked');
    expect(await ask()).toMatchObject({ permissionDecision: 'defer' });
    expect(await ask()).toMatchObject({ permissionDecision: 'defer' });
    await decide(opened.session, { decision: 'allow', input: { command: 'rm notes' } });
    await eventually('it is decided', async () => {
      const answer = (await ask()) as { permissionDecision: string; updatedInput?: object };
      if (answer.permissionDecision === 'defer') return false;
      expect(answer).toMatchObject({ permissionDecision: 'allow', updatedInput: { command: 'rm notes' } });
      return true;
    });
    const denied = (): Promise<object> => askHook(opened, 'Bash', { command: 'rm all' }, 'toolu_denied');
    expect(await denied()).toMatchObject({ permissionDecision: 'defer' });
    await decide(opened.session, { decision: 'deny', message: 'not that' });
    await eventually('it is denied', async () => {
      const answer = (await denied()) as { permissionDecision: string; permissionDecisionReason?: string };
      if (answer.permissionDecision === 'defer') return false;
      expect(answer).toMatchObject({ permissionDecision: 'deny', permissionDecisionReason: 'not that' });
      return true;
    });
    await opened.end();
  });

  it('plans a tool of ours, which then runs once, whoever asks for the result', async () => {
    const opened = await open('always_ask');
    const input = { command: 'echo x >> hooked; wc -l < hooked' };
    const ask = (): Promise<object> => askHook(opened, 'mcp__longhaul__bash', input, 'toolu_ours');
    expect(await ask()).toMatchObject({ permissionDecision: 'defer' });
    await decide(opened.session, { decision: 'allow' });
    await eventually(
      'it may go on',
      async () => ((await ask()) as { permissionDecision: string }).permissionDecision === 'allow',
    );
    const client = await connect(opened);
    const meta = { 'claudecode/toolUseId': 'toolu_ours' };
    expect(textOf(await client.callTool({ name: 'bash', arguments: input, _meta: meta }))).toBe('1\n');
    await client.close();
    await opened.end();
    expect(await effects(opened.session)).toEqual([{ tool: 'bash', kind: 'builtin', state: 'succeeded' }]);
  });
});
