import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startMcpDouble, type McpDouble } from '../doubles/mcp-server.ts';
import { scriptMessage, type ScriptStep, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const call = (tool: string, text: string): ScriptStep => ({ tools: [{ name: `mcp__shop__${tool}`, input: { text } }] });

describe('MCP servers of an agent', { timeout: STACK_TEST_MS }, () => {
  const token = `canary-${randomBytes(16).toString('hex')}`;
  let double: McpDouble;
  let stack: TestStack;
  let driver: SessionDriver;
  let agent: string;
  let vault: string;

  beforeAll(async () => {
    double = await startMcpDouble(token);
    stack = await startStack({ env: { LONGHAUL_VAULT_PRIVATE_HOSTS: double.host } });
    driver = new SessionDriver(stack);
    agent = await made('/v1/agents', {
      name: 'Shopper',
      model: 'scripted',
      mcp_servers: [{ type: 'url', name: 'shop', url: double.url }],
      tools: [
        {
          type: 'mcp_toolset',
          mcp_server_name: 'shop',
          default_config: { permission_policy: { type: 'always_allow' } },
          configs: [
            { name: 'note', permission_policy: { type: 'always_ask' } },
            { name: 'hidden', enabled: false },
          ],
        },
      ],
    });
    vault = await made('/v1/vaults', { display_name: 'Shop' });
    await made(`/v1/vaults/${vault}/credentials`, {
      auth: { type: 'static_bearer', mcp_server_url: double.url, token },
    });
  }, 180_000);

  afterAll(async () => {
    double?.release();
    await driver?.close();
    await stack?.stop();
    double?.close();
  });

  async function made(path: string, body: object): Promise<string> {
    const answer = await driver.call('POST', path, body);
    expect(answer).toMatchObject({ status: 200 });
    return String(answer.body.id);
  }

  let environments = 0;
  async function open(
    steps: ScriptStep[],
    {
      networking = { type: 'limited', allow_mcp_servers: true },
      vaults = [vault],
    }: { networking?: object; vaults?: string[] } = {},
  ): Promise<string> {
    environments += 1;
    return made('/v1/sessions', {
      agent,
      environment_id: await made('/v1/environments', {
        name: `Box ${environments}`,
        config: { type: 'cloud', networking },
      }),
      vault_ids: vaults,
      initial_events: [scriptMessage(steps)],
    });
  }

  const texts = async (sessionId: string, type: string): Promise<string[]> =>
    (
      await driver.query<{ text: string }>(
        `SELECT payload::text AS text FROM events WHERE session_id = $1 AND type = $2 ORDER BY seq`,
        [sessionId, type],
      )
    ).map((row) => row.text);
  const callsOf = (text: string): string[] =>
    double.calls.filter(({ input }) => input['text'] === text).map(({ tool }) => tool);

  it('calls a tool with the credential of the vault, which nobody else sees', async () => {
    const id = await open([call('echo', 'first'), call('whoami', 'who'), { text: 'over' }]);
    await driver.quiet([id]);
    expect(await driver.turnEnds(id)).toEqual(['end_turn']);
    expect(callsOf('first')).toEqual(['echo']);
    const [used] = await texts(id, 'agent.mcp_tool_use');
    expect(JSON.parse(used ?? '')).toMatchObject({
      mcp_server_name: 'shop',
      name: 'echo',
      input: { text: 'first' },
      evaluated_permission: 'allow',
    });
    const results = await texts(id, 'agent.mcp_tool_result');
    expect(results[0]).toContain('echo: first');
    // The server says what it got: the value does not come back.
    expect(callsOf('who')).toEqual(['whoami']);
    expect(results[1]).toContain('You sent Bearer ');
    expect(results.join()).not.toContain(token);
    expect(double.authorizations).toContain(`Bearer ${token}`);
    const audit = await driver.query<{ text: string }>(
      `SELECT details::text AS text FROM audit WHERE session_id = $1 AND action = 'mcp.request'`,
      [id],
    );
    expect(audit.length).toBeGreaterThan(0);
    expect(JSON.stringify(audit)).not.toContain(token);
  });

  it('asks a person where the definition says so, and calls once', async () => {
    const id = await open([call('note', 'asked'), { text: 'over' }]);
    const approval = await driver.pendingApproval(id);
    expect(callsOf('asked')).toEqual([]);
    await driver.decide(approval.id, 'allow');
    await driver.quiet([id]);
    expect(callsOf('asked')).toEqual(['note']);
  });

  it('shows no tool that is not enabled, and tells what the server refuses', async () => {
    const id = await open([call('hidden', 'hidden'), { text: 'over' }]);
    const failing = await open([call('fails', 'fails'), { text: 'over' }]);
    await driver.quiet([id, failing]);
    expect(callsOf('hidden')).toEqual([]);
    expect(await texts(id, 'agent.mcp_tool_use')).toEqual([]);
    expect((await texts(failing, 'agent.mcp_tool_result'))[0]).toMatch(/it did not work.*"is_error": ?true/);
  });

  it('reaches no server that the network of the environment does not open, or whose credential is missing', async () => {
    const before = double.authorizations.length;
    const closed = await open([call('echo', 'closed'), { text: 'over' }], { networking: { type: 'limited' } });
    await driver.quiet([closed]);
    expect(double.authorizations.length).toBe(before);
    const [listing] = await driver.query<{ error: string }>(
      'SELECT error FROM session_mcp_listings WHERE session_id = $1',
      [closed],
    );
    expect(listing?.error).toContain('allow_mcp_servers');
    const unknown = await open([call('echo', 'unknown'), { text: 'over' }], { vaults: [] });
    await driver.quiet([unknown]);
    expect(double.authorizations.slice(before)).toEqual(expect.arrayContaining([undefined]));
    expect(callsOf('unknown')).toEqual([]);
  });

  it('asks a person when the worker died during a call, instead of calling again', async () => {
    const id = await open([call('hang', 'lost'), { text: 'over' }]);
    await driver.until('the server is asked', () => callsOf('lost').length === 1);
    driver.kill('worker');
    const approval = await driver.pendingApproval(id);
    expect(approval.kind).toBe('lost_effect');
    double.release();
    await driver.decide(approval.id, 'done', { message: 'It was done.' });
    await driver.quiet([id]);
    expect(callsOf('lost')).toEqual(['hang']);
    expect(await driver.turnEnds(id)).toEqual(['end_turn']);
  });
});
