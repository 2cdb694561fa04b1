import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mintSessionToken, revokeSessionTokens } from '../../db/queries/session-tokens.ts';
import type { TestApi } from './support.ts';
import { makeAgent, testApi } from './support.ts';

let api: TestApi;
let server: Server;
let url: string;

beforeAll(async () => {
  api = await testApi();
  server = createServer(api.app).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}, 120_000);

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await api.close();
});

const TOOLS = [
  {
    type: 'agent_toolset_20260401',
    configs: [{ name: 'grep', enabled: false }],
  },
  { type: 'custom', name: 'lookup', description: 'Looks it up.', input_schema: { type: 'object', properties: {} } },
];

/** A session of an agent of another harness; no turn of it runs. */
async function makeSession(more: object = {}): Promise<string> {
  const { agentId, environmentId } = await makeAgent(api, { tools: TOOLS });
  const made = await api.post('/v1/sessions', { agent: agentId, environment_id: environmentId }).expect(200);
  const id = made.body.id as string;
  await api.pool.query('UPDATE sessions SET agent = agent || $2::jsonb WHERE id = $1', [
    id,
    JSON.stringify({ harness: 'acp', placement: 'inline', ...more }),
  ]);
  return id;
}

async function connect(token: string, path = '/mcp'): Promise<Client> {
  const client = new Client({ name: 'test', version: '1' });
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL(`${url}${path}`), { requestInit }));
  return client;
}

const raw = (token: string | undefined, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${url}/mcp`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

const LIST = { jsonrpc: '2.0', id: 1, method: 'tools/list' };

describe('the MCP endpoint', () => {
  it('shows the tools of the session: hands that are enabled, custom tools, and those of the platform', async () => {
    const sessionId = await makeSession();
    const { token } = await mintSessionToken(api.pool, sessionId, 'mcp');
    const client = await connect(token);
    const { tools } = await client.listTools();
    expect(tools.map(({ name }) => name)).toEqual([
      'bash',
      'edit',
      'glob',
      'read',
      'write',
      'lookup',
      'list_artifacts',
      'report_issue',
      'request_approval',
    ]);
    expect(tools[0]?.inputSchema).toMatchObject({ required: ['command'], additionalProperties: false });
    await client.close();
  }, 120_000);

  it('shows no hands to a harness that has its own', async () => {
    const sessionId = await makeSession({ placement: 'sandbox' });
    const { token } = await mintSessionToken(api.pool, sessionId, 'mcp');
    const client = await connect(token);
    const names = (await client.listTools()).tools.map(({ name }) => name);
    expect(names).toEqual(['lookup', 'list_artifacts', 'report_issue', 'request_approval']);
    await client.close();
  }, 120_000);

  it('answers a call without a running turn, and one of an unknown tool, so that the model can read it', async () => {
    const sessionId = await makeSession();
    const { token } = await mintSessionToken(api.pool, sessionId, 'mcp');
    const client = await connect(token);
    const answer = await client.callTool({ name: 'bash', arguments: { command: 'true' } });
    expect(answer.isError).toBe(true);
    expect(JSON.stringify(answer.content)).toContain('no turn');
    await expect(client.callTool({ name: 'grep', arguments: {} })).rejects.toThrow(/no tool named grep/);
    await client.close();
  }, 120_000);

  it('refuses who has no token of it', async () => {
    const sessionId = await makeSession();
    const hook = await mintSessionToken(api.pool, sessionId, 'hook');
    const ended = await makeSession();
    const late = await mintSessionToken(api.pool, ended, 'mcp');
    await api.pool.query(`UPDATE sessions SET status = 'terminated' WHERE id = $1`, [ended]);
    const expired = await mintSessionToken(api.pool, sessionId, 'mcp', -1);
    for (const token of [undefined, api.key, 'lhs_nonsense', hook.token, late.token, expired.token]) {
      const answer = await raw(token, LIST);
      expect(answer.status).toBe(401);
      expect(await answer.text()).not.toContain(token ?? 'no token');
    }
    const { token } = await mintSessionToken(api.pool, sessionId, 'mcp');
    expect((await raw(token, LIST)).status).toBe(200);
    await revokeSessionTokens(api.pool, sessionId);
    expect((await raw(token, LIST)).status).toBe(401);
    // A token is for its endpoint only: it opens nothing of the API.
    const { token: other } = await mintSessionToken(api.pool, await makeSession(), 'mcp');
    const asked = await fetch(`${url}/v1/sessions`, { headers: { authorization: `Bearer ${other}` } });
    expect(asked.status).toBe(401);
    for (const authorization of [`Bearer ${other}`, `Basic ${Buffer.from(`x:${other}`).toString('base64')}`]) {
      const decided = await fetch(`${url}/opencode/permission/appr_x/reply`, {
        method: 'POST',
        headers: { authorization, 'content-type': 'application/json' },
        body: '{"reply":"once"}',
      });
      expect(decided.status).toBe(401);
    }
  }, 120_000);

  it('refuses what is no message of the protocol', async () => {
    const { token } = await mintSessionToken(api.pool, await makeSession(), 'mcp');
    expect((await raw(token, [LIST])).status).toBe(400);
    expect((await raw(token, '{')).status).toBe(400);
    expect((await raw(token, `{"a":${'['.repeat(20_000)}${']'.repeat(20_000)}}`)).status).toBe(400);
    expect((await raw(token, { hello: 1 })).status).toBe(400);
    expect((await raw(token, LIST, { accept: 'text/html' })).status).toBe(406);
    expect((await raw(token, LIST, { 'content-type': 'text/plain' })).status).toBe(415);
    const big = { ...LIST, params: { _meta: { pad: 'x'.repeat(5 * 1024 * 1024) } } };
    expect((await raw(token, big)).status).toBe(413);
    expect((await fetch(`${url}/mcp`, { headers: { authorization: `Bearer ${token}` } })).status).toBe(405);
  }, 120_000);
});

const HOOK = {
  hook_event_name: 'PreToolUse',
  session_id: 'of the harness',
  tool_name: 'Bash',
  tool_input: { command: 'true' },
  tool_use_id: 'toolu_1',
};

const ask = (token: string, body: unknown): Promise<Response> =>
  fetch(`${url}/v1/harness/hooks/pre-tool-use`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify(body),
  });

describe('the hook of Claude Code', () => {
  it('denies a call while no turn runs', async () => {
    const { token } = await mintSessionToken(api.pool, await makeSession(), 'hook');
    const answer = await ask(token, HOOK);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({
      hookSpecificOutput: { hookEventName: 'PreToolUse', permissionDecision: 'deny' },
    });
  }, 120_000);

  it('fails, which blocks the call, for another token and for a request it cannot read', async () => {
    const sessionId = await makeSession();
    const { token } = await mintSessionToken(api.pool, sessionId, 'mcp');
    expect((await ask(token, HOOK)).status).toBe(401);
    const hook = await mintSessionToken(api.pool, sessionId, 'hook');
    const answer = await ask(hook.token, { ...HOOK, tool_input: 'text' });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { field: 'tool_input' } });
  }, 120_000);
});
