import Anthropic from '@anthropic-ai/sdk';
import { Connection, Client } from '@temporalio/client';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startOAuthDouble, type OAuthDouble } from '../doubles/oauth-server.ts';
import { eventually, makeHome, runCli, startStack, type TestStack } from '../support/stack.ts';
import { canary } from './support.ts';

/** A whole stack, and a search for secrets in all that it leaves behind. Each search also finds something that is there. */
let stack: TestStack;
let client: Anthropic;
let oauth: OAuthDouble;
const home = makeHome();
const fromEnvironment = canary();
beforeAll(async () => {
  oauth = await startOAuthDouble();
  await start();
}, 180_000);
afterAll(async () => {
  await stack?.stop();
  oauth?.close();
  rmSync(home, { recursive: true, force: true });
});

async function start(): Promise<void> {
  const env = {
    LONGHAUL_VAULT_PRIVATE_HOSTS: oauth.host,
    LONGHAUL_VAULT_ENV: 'SOME_TOKEN@*',
    SOME_TOKEN: fromEnvironment,
  };
  stack = await startStack({ home, env });
  // Looking through all files holds this process up; a connection the api closed meanwhile is tried anew.
  client = new Anthropic({ baseURL: stack.url, apiKey: stack.key, maxRetries: 2 });
}

/** Files of the home that hold one of the texts, by text. */
function filesWith(texts: readonly string[]): Map<string, string[]> {
  const found = new Map<string, string[]>(texts.map((text) => [text, []]));
  const needles = texts.map((text) => [text, Buffer.from(text)] as const);
  for (const name of readdirSync(stack.home, { recursive: true, encoding: 'utf8' })) {
    const file = path.join(stack.home, name);
    let content: Buffer;
    try {
      if (!statSync(file).isFile()) continue;
      content = readFileSync(file);
    } catch {
      // Gone since it was listed.
      continue;
    }
    for (const [text, needle] of needles) if (content.includes(needle)) found.get(text)?.push(name);
  }
  return found;
}

function processesWith(text: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)) {
    for (const file of ['environ', 'cmdline']) {
      try {
        if (readFileSync(`/proc/${pid}/${file}`).includes(text)) found.push(`${pid}/${file}`);
      } catch {
        // It ended.
      }
    }
  }
  return found;
}

async function historyOf(sessionId: string): Promise<string> {
  const connection = await Connection.connect({ address: stack.devJson.temporalAddress });
  const temporal = new Client({ connection, namespace: stack.devJson.temporalNamespace });
  const history = await temporal.workflow.getHandle(`session/${sessionId}`).fetchHistory();
  await connection.close();
  // Payloads are bytes of JSON.
  return JSON.stringify(history, (_key, value: unknown) =>
    value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : value,
  );
}

it('leaves no value anywhere, and no placeholder in a history', async () => {
  const value = canary('ghp_');
  const token = canary();
  const vault = await client.beta.vaults.create({ display_name: 'Build' });
  await client.beta.vaults.credentials.create(vault.id, {
    auth: {
      type: 'environment_variable',
      secret_name: 'CANARY_TOKEN',
      secret_value: value,
      networking: { type: 'limited', allowed_hosts: ['api.example.com'] },
    },
  });
  const validated = await client.beta.vaults.credentials.create(vault.id, {
    auth: {
      type: 'mcp_oauth',
      mcp_server_url: `${oauth.url}/mcp`,
      access_token: token,
      refresh: {
        client_id: 'app',
        refresh_token: oauth.refreshToken,
        token_endpoint: `${oauth.url}/token`,
        token_endpoint_auth: { type: 'none' },
      },
    },
  });
  const secrets = [value, token, oauth.refreshToken];
  // Our broker renews the refused token and tries the new one.
  const verdict = await client.beta.vaults.credentials.mcpOAuthValidate(validated.id, { vault_id: vault.id });
  expect(verdict).toMatchObject({
    type: 'vault_credential_validation',
    status: 'valid',
    refresh: { status: 'succeeded' },
  });
  secrets.push(oauth.refreshToken, ...oauth.valid);

  const environment = await client.beta.environments.create({ name: 'e', config: { type: 'cloud' } });
  const tools = [{ type: 'agent_toolset_20260401' as const, default_config: { enabled: true } }];
  const agent = await client.beta.agents.create({ name: 'a', model: 'scripted', tools });
  const command =
    'printf "len:%s begins:%s\\n" "${#CANARY_TOKEN}" "$(printf %s "$CANARY_TOKEN" | cut -c1-4)"; echo "$CANARY_TOKEN"';
  const steps = [{ tools: [{ name: 'bash', input: { command } }] }, { text: 'done' }];
  const session = await client.beta.sessions.create({
    agent: agent.id,
    environment_id: environment.id,
    vault_ids: [vault.id],
  });
  await client.beta.sessions.events.send(session.id, {
    events: [
      { type: 'user.message', content: [{ type: 'text', text: `Go\n\`\`\`script\n${JSON.stringify(steps)}\n\`\`\`` }] },
    ],
  });
  await eventually('the turn is over', async () => {
    const { status } = await client.beta.sessions.retrieve(session.id);
    return status === 'idle' && /len:\d+ begins/.test(JSON.stringify(await eventsOf(session.id)));
  });
  const database = new pg.Client({ connectionString: stack.devJson.databaseUrl });
  await database.connect();
  const { rows } = await database.query<{ placeholder: string }>(
    'SELECT placeholder FROM session_credentials WHERE session_id = $1 AND env = $2',
    [session.id, 'CANARY_TOKEN'],
  );
  const placeholder = rows[0]?.placeholder ?? '';
  expect(placeholder).toMatch(/^ghp_[A-Za-z0-9]{39}$/);
  // The sandbox had it, not the value.
  expect(JSON.stringify(await eventsOf(session.id))).toContain(`len:${placeholder.length} begins:ghp_`);

  const history = await historyOf(session.id);
  expect(history).toContain('runEffect');
  for (const text of [...secrets, placeholder]) expect(history).not.toContain(text);

  const masterKey = readFileSync(path.join(stack.home, 'vault-key'), 'utf8').trim();
  expect(statSync(path.join(stack.home, 'vault-key')).mode & 0o777).toBe(0o600);
  // All of the database's pages and log, Temporal's database, logs and sandboxes.
  const files = filesWith([...secrets, masterKey, placeholder, 'CANARY_TOKEN']);
  for (const secret of secrets) expect(files.get(secret)).toEqual([]);
  expect(files.get(masterKey)).toEqual(['vault-key']);
  expect(files.get(placeholder)?.some((name) => name.startsWith('postgres/'))).toBe(true);
  expect(files.get(placeholder)?.filter((name) => /^temporal|^logs/.test(name))).toEqual([]);
  expect(files.get('CANARY_TOKEN')?.length).toBeGreaterThan(0);

  expect(processesWith(stack.devJson.databaseUrl).length).toBeGreaterThan(0);
  for (const text of [...secrets, masterKey]) expect(processesWith(text)).toEqual([]);

  await client.beta.sessions.archive(session.id);
  await eventually('the session ended', async () => {
    const ended = await database.query(
      'SELECT 1 FROM session_credentials WHERE session_id = $1 AND revoked_at IS NULL',
      [session.id],
    );
    return ended.rows.length === 0;
  });
  await database.end();
}, 180_000);

it('keeps what only the broker is to know from the other processes', () => {
  const { worker, api, egress } = stack.pids();
  for (const pid of [worker, api, egress]) {
    const environ = readFileSync(`/proc/${pid}/environ`, 'latin1');
    expect(environ).toContain('LONGHAUL_VAULT_ENV=');
    expect(environ).not.toContain(fromEnvironment);
  }
});

it('changes the master key of a home: both keys at a restart, then the values, then the old key can go', async () => {
  const vault = await client.beta.vaults.create({ display_name: 'Kept' });
  const { id } = await client.beta.vaults.credentials.create(vault.id, {
    auth: { type: 'mcp_oauth', mcp_server_url: `${oauth.url}/mcp`, access_token: [...oauth.valid][0] ?? '' },
  });
  const validate = async () =>
    (await client.beta.vaults.credentials.mcpOAuthValidate(id, { vault_id: vault.id })).status;
  expect(await validate()).toBe('valid');
  const file = path.join(home, 'vault-key');
  const old = readFileSync(file, 'utf8').trim();
  const next = randomBytes(32).toString('base64');
  for (const keys of [`${next}\n${old}\n`, `${next}\n`]) {
    await stack.stop();
    writeFileSync(file, keys, { mode: 0o600 });
    await start();
    expect(await validate()).toBe('valid');
    if (!keys.includes(old)) break;
    const { code, stderr, stdout } = await runCli(['vault', 'rotate-key'], home);
    expect([code, stderr]).toEqual([0, expect.stringContaining('No value needs another key now')]);
    for (const secret of [old, next]) expect(stdout + stderr).not.toContain(secret);
  }
}, 180_000);

async function eventsOf(sessionId: string): Promise<unknown[]> {
  const events: unknown[] = [];
  for await (const event of client.beta.sessions.events.list(sessionId, { limit: 100 })) events.push(event);
  return events;
}
