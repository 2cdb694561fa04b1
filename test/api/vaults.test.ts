import Anthropic, { BadRequestError, ConflictError, NotFoundError } from '@anthropic-ai/sdk';
import { randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { prepareCredentials } from '../../vault/prepare.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import { createDeploymentSession } from '../../db/queries/deployments.ts';
import { listSessionCredentials } from '../../db/queries/session-credentials.ts';
import { placeholdersOf } from '../vault/support.ts';
import type { TestApi } from './support.ts';
import { makeAgent, makeSession, testApi } from './support.ts';

/** The vaults as the official SDK sees them, and what is left of a secret behind them: nothing. */
let api: TestApi;
let server: Server;
let client: Anthropic;
let other: Anthropic;
beforeAll(async () => {
  api = await testApi();
  server = createServer(api.app).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  client = new Anthropic({ baseURL, apiKey: api.key, maxRetries: 0 });
  other = new Anthropic({ baseURL, apiKey: api.otherKey, maxRetries: 0 });
}, 120_000);
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await api.close();
});

const canary = (prefix = ''): string => `${prefix}canary-${randomBytes(16).toString('hex')}`;
const limited = (...allowed_hosts: string[]) => ({ type: 'limited' as const, allowed_hosts });
const variable = (secret_name: string, secret_value: string, more: object = {}) => ({
  type: 'environment_variable' as const,
  secret_name,
  secret_value,
  networking: limited('api.example.com'),
  ...more,
});
const newVault = async (): Promise<string> => (await client.beta.vaults.create({ display_name: 'Team' })).id;

/** Every table as text, and the bytes of every binary column. */
async function database(): Promise<string> {
  const { rows } = await api.pool.query<{ name: string }>(
    `SELECT quote_ident(table_name) AS name FROM information_schema.tables
     WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
  );
  let all = '';
  for (const { name } of rows) {
    const found = await api.pool.query<Record<string, unknown>>(`SELECT * FROM ${name}`);
    for (const row of found.rows) {
      for (const value of Object.values(row)) {
        all += Buffer.isBuffer(value) ? value.toString('latin1') : (JSON.stringify(value) ?? '');
      }
    }
  }
  return all;
}

async function audit(resource: string): Promise<string[]> {
  const { rows } = await api.pool.query<{ action: string }>(
    'SELECT action FROM audit WHERE resource = $1 ORDER BY seq',
    [resource],
  );
  return rows.map((row) => row.action);
}

describe('vaults', () => {
  it('are made, read, changed, listed, archived and deleted', async () => {
    const made = await client.beta.vaults.create({ display_name: ' Build ', metadata: { cost: 'ci' } });
    expect(made).toMatchObject({ type: 'vault', display_name: 'Build', metadata: { cost: 'ci' }, archived_at: null });
    expect(made.id).toMatch(/^vlt_/);
    const changed = await client.beta.vaults.update(made.id, { display_name: 'CI', metadata: { cost: null, a: 'b' } });
    expect(changed).toMatchObject({ display_name: 'CI', metadata: { a: 'b' } });
    expect(await client.beta.vaults.retrieve(made.id)).toEqual(changed);
    const pages: string[] = [];
    await newVault();
    for await (const one of client.beta.vaults.list({ limit: 1 })) pages.push(one.id);
    expect(pages).toContain(made.id);
    const archived = await client.beta.vaults.archive(made.id);
    expect(archived.archived_at).not.toBeNull();
    expect(await client.beta.vaults.archive(made.id)).toEqual(archived);
    await expect(client.beta.vaults.update(made.id, { display_name: 'x' })).rejects.toBeInstanceOf(ConflictError);
    const ids = async (include_archived: boolean) =>
      (await client.beta.vaults.list({ include_archived, limit: 100 })).data.map((one) => one.id);
    expect(await ids(false)).not.toContain(made.id);
    expect(await ids(true)).toContain(made.id);
    expect(await client.beta.vaults.delete(made.id)).toEqual({ id: made.id, type: 'vault_deleted' });
    await expect(client.beta.vaults.retrieve(made.id)).rejects.toBeInstanceOf(NotFoundError);
    expect(await audit(made.id)).toEqual(['vault.create', 'vault.update', 'vault.archive', 'vault.delete']);
  }, 60_000);

  it('are of one team', async () => {
    const vaultId = await newVault();
    const { id } = await client.beta.vaults.credentials.create(vaultId, { auth: variable('T', canary()) });
    const place = { vault_id: vaultId };
    const tries = [
      () => other.beta.vaults.retrieve(vaultId),
      () => other.beta.vaults.update(vaultId, { display_name: 'mine' }),
      () => other.beta.vaults.delete(vaultId),
      () => other.beta.vaults.credentials.create(vaultId, { auth: variable('U', canary()) }),
      () => other.beta.vaults.credentials.retrieve(id, place),
      () => other.beta.vaults.credentials.update(id, { ...place, auth: { type: 'environment_variable' } }),
      () => other.beta.vaults.credentials.delete(id, place),
      () => other.beta.vaults.credentials.list(vaultId),
    ];
    for (const attempt of tries) await expect(attempt()).rejects.toBeInstanceOf(NotFoundError);
    expect((await other.beta.vaults.list()).data).toEqual([]);
    const { agentId, environmentId } = await makeAgent(api);
    const body = { agent: agentId, environment_id: environmentId };
    for (const [vaultIds, status] of [
      [[vaultId], 200],
      [[vaultId, 'vlt_nothing'], 404],
    ] as const) {
      const sent = await api.post('/v1/sessions', { ...body, vault_ids: vaultIds }).expect(status);
      if (status === 404) expect(sent.body.error.field).toBe('vault_ids[1]');
    }
    const deployment = {
      ...body,
      name: 'd',
      initial_events: [{ type: 'user.message', content: [{ type: 'text', text: 'x' }] }],
    };
    await api.post('/v1/deployments', { ...deployment, vault_ids: ['vlt_nothing'] }).expect(404);
    const kept = await api.post('/v1/deployments', { ...deployment, vault_ids: [vaultId] }).expect(200);
    await api.post(`/v1/deployments/${kept.body.id}`, { vault_ids: ['vlt_nothing'] }).expect(404);
  }, 60_000);
});

describe('credentials', () => {
  it('of each kind keep their value to themselves', async () => {
    const vaultId = await newVault();
    const secrets: string[] = [];
    const secret = (prefix = '') => {
      const value = canary(prefix);
      secrets.push(value);
      return value;
    };
    const mcp_server_url = 'https://mcp.example.com/v1/mcp';
    const answers = [
      await client.beta.vaults.credentials.create(vaultId, {
        display_name: 'GitHub',
        auth: variable('GH', secret('ghp_')),
      }),
      await client.beta.vaults.credentials.create(vaultId, {
        auth: { type: 'static_bearer', mcp_server_url, token: secret() },
      }),
      await client.beta.vaults.credentials.create(vaultId, {
        auth: {
          type: 'mcp_oauth',
          mcp_server_url,
          access_token: secret(),
          expires_at: '2099-01-01T00:00:00Z',
          refresh: {
            client_id: 'app',
            refresh_token: secret(),
            token_endpoint: 'https://auth.example.com/token',
            token_endpoint_auth: { type: 'client_secret_basic', client_secret: secret() },
            scope: 'read',
          },
        },
      }),
    ];
    expect(answers[0]).toMatchObject({
      type: 'vault_credential',
      vault_id: vaultId,
      display_name: 'GitHub',
      auth: {
        type: 'environment_variable',
        secret_name: 'GH',
        networking: { type: 'limited', allowed_hosts: ['api.example.com'] },
        injection_location: { header: true, basic: true, body: false, query: false },
      },
      version: 1,
      state: 'active',
    });
    expect(answers[0]?.id).toMatch(/^vcrd_/);
    expect(answers[1]?.auth).toEqual({ type: 'static_bearer', mcp_server_url, secret_ref: null });
    expect(answers[2]?.auth).toEqual({
      type: 'mcp_oauth',
      mcp_server_url,
      expires_at: '2099-01-01T00:00:00.000Z',
      refresh: {
        client_id: 'app',
        token_endpoint: 'https://auth.example.com/token',
        token_endpoint_auth: { type: 'client_secret_basic' },
        resource: null,
        scope: 'read',
      },
    });
    const path = `/v1/vaults/${vaultId}/credentials`;
    const key = `-----BEGIN OPENSSH PRIVATE KEY-----\n${secret()}\n-----END OPENSSH PRIVATE KEY-----\n`;
    const ssh = { type: 'ssh', private_key: key, passphrase: secret(), networking: limited('GitHub.com.') };
    const git = { type: 'git', password: secret('glpat-'), networking: limited('gitlab.example.com') };
    answers.push(
      (await api.post(path, { auth: ssh }).expect(200)).body,
      (await api.post(path, { auth: git }).expect(200)).body,
    );
    expect(answers[3]?.auth).toMatchObject({ type: 'ssh', username: 'git', networking: limited('github.com') });
    expect(answers[4]?.auth).toMatchObject({ type: 'git', username: 'x-access-token' });
    const listed = await client.beta.vaults.credentials.list(vaultId, { limit: 100 });
    expect(listed.data).toHaveLength(5);
    const [all, shown] = [await database(), JSON.stringify([answers, listed.data])];
    // Positive control: the search finds what is there.
    expect(all).toContain('api.example.com');
    for (const value of secrets) {
      expect(all).not.toContain(value);
      expect(shown).not.toContain(value);
    }
  }, 60_000);

  it('are not to be found in answers that are kept, errors or logs, whatever was wrong with the request', async () => {
    const vaultId = await newVault();
    const path = `/v1/vaults/${vaultId}/credentials`;
    const value = canary();
    const logged: string[] = [];
    const logger = api.services.logger;
    const write = (line: unknown) =>
      logged.push(JSON.stringify(line, (_k, v: unknown) => (v instanceof Error ? v.stack : v)));
    for (const level of ['info', 'warn', 'error', 'fatal'] as const) logger[level] = write;
    const wrong: [object, string][] = [
      [variable('A', `${value}\n`), 'auth.secret_value'],
      [variable('A B', value), 'auth.secret_name'],
      [variable('LD_PRELOAD', value), 'auth.secret_name'],
      [variable('A', value, { networking: limited() }), 'auth.networking.allowed_hosts'],
      [variable('A', value, { networking: limited('https://a.example.com') }), 'auth.networking.allowed_hosts[0]'],
      [variable('A', value, { networking: limited('a.example.com:8443') }), 'auth.networking.allowed_hosts[0]'],
      [variable('A', value, { networking: limited('*.com') }), 'auth.networking.allowed_hosts[0]'],
      [variable('A', value, { networking: limited('2001:db8::1') }), 'auth.networking.allowed_hosts'],
      [
        variable('A', value, { networking: limited(...Array.from({ length: 17 }, (_, i) => `h${i}.example.com`)) }),
        'auth.networking.allowed_hosts',
      ],
      [{ ...variable('A', value), networking: undefined }, 'auth.networking'],
      [variable('A', value, { injection_location: { header: false } }), 'auth.injection_location'],
      [variable('A', value, { paths: ['relative'] }), 'auth.paths[0]'],
      [variable('A', value, { paths: ['/ok/*', '/a/*/b'] }), 'auth.paths[1]'],
      [variable('A', value, { surplus: value }), 'auth.surplus'],
      [variable('A', value, { secret_ref: 'vault://file/x' }), 'auth.secret_value'],
      [{ ...variable('A', value), secret_value: { nested: value } }, 'auth.secret_value'],
      [
        { type: 'static_bearer', token: value, mcp_server_url: `http://mcp.example.com/${value}` },
        'auth.mcp_server_url',
      ],
      [
        {
          type: 'mcp_oauth',
          access_token: value,
          mcp_server_url: 'https://m.example.com',
          expires_at: '2001-01-01T00:00:00Z',
        },
        'auth.expires_at',
      ],
    ];
    for (const [auth, field] of wrong) {
      const sent = await api.post(path, { auth });
      expect([sent.status, sent.body.error.field]).toEqual([400, field]);
      expect(sent.text).not.toContain(value);
    }
    const broken = await api
      .post(path)
      .set('content-type', 'application/json')
      .send(`{"auth": {"secret_value": "${value}"`);
    expect(broken.status).toBe(400);
    expect(broken.text).not.toContain(value);
    const send = () => api.post(path, { auth: variable('A', value) }).set('idempotency-key', `k-${vaultId}`);
    const first = await send().expect(200);
    const again = await send().expect(200);
    expect([again.headers['idempotent-replayed'], again.body]).toEqual(['true', first.body]);
    await api
      .post(path, { auth: variable('A', canary()) })
      .set('idempotency-key', `k-${vaultId}`)
      .expect(409);
    const all = await database();
    expect(all).not.toContain(value);
    // Nor a digest that a guess could be tried against.
    const { rows } = await api.pool.query<{ body_digest: string }>(
      'SELECT body_digest FROM idempotency_keys WHERE key = $1',
      [`k-${vaultId}`],
    );
    const { createHash } = await import('node:crypto');
    const canonicalize = (await import('canonicalize')).default;
    const plain = createHash('sha256')
      .update(canonicalize({ auth: variable('A', value) }) ?? '')
      .digest('hex');
    expect(rows).toHaveLength(1);
    expect(rows[0]?.body_digest).not.toBe(plain);
    write({ control: 'a line' });
    expect(logged.join('\n')).toContain('a line');
    expect(logged.join('\n')).not.toContain(value);
  }, 60_000);

  it('are found once by name, and a vault holds so many', async () => {
    const vaultId = await newVault();
    const { id } = await client.beta.vaults.credentials.create(vaultId, { auth: variable('T0', canary()) });
    const twice = client.beta.vaults.credentials.create(vaultId, { auth: variable('T0', canary()) });
    await expect(twice).rejects.toMatchObject({ status: 409, error: { error: { code: 'already_exists' } } });
    for (let n = 1; n < LIMITS.credentialsPerVault; n += 1) {
      await client.beta.vaults.credentials.create(vaultId, { auth: variable(`T${n}`, canary()) });
    }
    const more = client.beta.vaults.credentials.create(vaultId, { auth: variable('ONE_MORE', canary()) });
    await expect(more).rejects.toMatchObject({ error: { error: { code: 'limit_reached' } } });
    await client.beta.vaults.credentials.archive(id, { vault_id: vaultId });
    await client.beta.vaults.credentials.create(vaultId, { auth: variable('T0', canary()) });
  }, 60_000);

  it('are changed by new versions, whose rules running sessions follow', async () => {
    const vaultId = await newVault();
    const place = { vault_id: vaultId };
    const made = await client.beta.vaults.credentials.create(vaultId, { auth: variable('GH', canary('ghp_')) });
    const sessionId = await makeSession(api, { vault_ids: [vaultId] });
    await prepareCredentials(api.pool, sessionId);
    const [before] = await listSessionCredentials(api.pool, sessionId);
    const changed = (await client.beta.vaults.credentials.update(made.id, {
      ...place,
      display_name: 'Main',
      auth: {
        type: 'environment_variable',
        secret_value: canary('ghp_'),
        networking: limited('*.Example.COM', 'uploads.example.org.'),
        injection_location: { body: true },
      },
    })) as unknown as { version: number; auth: object; display_name: string };
    expect(changed).toMatchObject({
      version: 2,
      display_name: 'Main',
      auth: {
        networking: limited('*.example.com', 'uploads.example.org'),
        injection_location: { header: true, basic: true, body: true, query: false },
      },
    });
    expect(await listSessionCredentials(api.pool, sessionId)).toEqual([
      {
        ...before,
        hosts: ['*.example.com', 'uploads.example.org'],
        locations: ['header', 'basic', 'body'],
      },
    ]);
    const { rows } = await api.pool.query(
      'SELECT version, sealed IS NULL AS destroyed FROM credential_versions WHERE credential_id = $1 ORDER BY version',
      [made.id],
    );
    expect(rows).toEqual([
      { version: 1, destroyed: true },
      { version: 2, destroyed: false },
    ]);
    const another = client.beta.vaults.credentials.update(made.id, { ...place, auth: { type: 'static_bearer' } });
    await expect(another).rejects.toBeInstanceOf(BadRequestError);
    const same = await client.beta.vaults.credentials.update(made.id, { ...place, metadata: { a: 'b' } });
    expect(same).toMatchObject({ version: 2, metadata: { a: 'b' } });
    expect(await audit(made.id)).toEqual(['credential.create', 'credential.rotate', 'credential.update']);
  }, 60_000);

  it('may go everywhere only when that is said, and that is written down', async () => {
    const vaultId = await newVault();
    const auth = variable('ANY', canary(), { networking: { type: 'unrestricted' } });
    const made = await client.beta.vaults.credentials.create(vaultId, { auth });
    expect(made.auth).toMatchObject({ networking: { type: 'unrestricted' } });
    expect(await audit(made.id)).toEqual(['credential.create', 'credential.unrestricted']);
    const named = await client.beta.vaults.credentials.create(vaultId, { auth: variable('ONE', canary()) });
    expect(await audit(named.id)).toEqual(['credential.create']);
    await client.beta.vaults.credentials.update(named.id, {
      vault_id: vaultId,
      auth: { type: 'environment_variable', networking: { type: 'unrestricted' } },
    });
    expect(await audit(named.id)).toContain('credential.unrestricted');
  }, 60_000);

  it.each(['archive', 'delete', 'archive the vault of', 'delete the vault of'])(
    'end in running sessions when somebody is to %s them',
    async (how) => {
      const vaultId = await newVault();
      const place = { vault_id: vaultId };
      const value = canary();
      const { id } = await client.beta.vaults.credentials.create(vaultId, { auth: variable('T', value) });
      const sessionId = await makeSession(api, { vault_ids: [vaultId] });
      await prepareCredentials(api.pool, sessionId);
      expect(Object.keys(await placeholdersOf(api.pool, sessionId))).toEqual(['T']);
      if (how === 'archive') await client.beta.vaults.credentials.archive(id, place);
      else if (how === 'delete') await client.beta.vaults.credentials.delete(id, place);
      else if (how.startsWith('archive')) await client.beta.vaults.archive(vaultId);
      else await client.beta.vaults.delete(vaultId);
      expect(await placeholdersOf(api.pool, sessionId)).toEqual({});
      await prepareCredentials(api.pool, sessionId);
      expect(await placeholdersOf(api.pool, sessionId)).toEqual({});
      expect((await listSessionCredentials(api.pool, sessionId))[0]?.revokedAt).not.toBeNull();
      expect(await audit(id)).toContain('credential.revoke');
      const { rows } = await api.pool.query(
        'SELECT 1 FROM credential_versions WHERE credential_id = $1 AND sealed IS NOT NULL',
        [id],
      );
      expect(rows).toEqual([]);
    },
    60_000,
  );

  it('of OAuth are edited part by part', async () => {
    const vaultId = await newVault();
    const place = { vault_id: vaultId };
    const { id } = await client.beta.vaults.credentials.create(vaultId, {
      auth: {
        type: 'mcp_oauth',
        mcp_server_url: 'https://mcp.example.com/',
        access_token: canary(),
        refresh: {
          client_id: 'app',
          refresh_token: canary(),
          token_endpoint: 'https://auth.example.com/token',
          token_endpoint_auth: { type: 'none' },
        },
      },
    });
    await client.beta.vaults.credentials.update(id, {
      ...place,
      auth: { type: 'mcp_oauth', access_token: canary(), expires_at: '2098-01-01T00:00:00Z' },
    });
    const after = await client.beta.vaults.credentials.update(id, {
      ...place,
      auth: { type: 'mcp_oauth', refresh: { scope: 'write' } },
    });
    expect(after.auth).toMatchObject({ expires_at: '2098-01-01T00:00:00.000Z', refresh: { scope: 'write' } });
    const { rows } = await api.pool.query(
      `SELECT c.spec -> 'parts' AS parts, array_agg(v.version ORDER BY v.version) AS kept FROM credentials c
       JOIN credential_versions v ON v.credential_id = c.id AND v.sealed IS NOT NULL WHERE c.id = $1 GROUP BY c.id`,
      [id],
    );
    expect(rows).toEqual([{ parts: { access_token: 2, refresh_token: 1 }, kept: [1, 2] }]);
    const secret = { type: 'client_secret_post' as const, client_secret: canary() };
    const refused = client.beta.vaults.credentials.update(id, {
      ...place,
      auth: { type: 'mcp_oauth', refresh: { token_endpoint_auth: secret } },
    });
    await expect(refused).rejects.toBeInstanceOf(BadRequestError);
  }, 60_000);
});

describe('deployments', () => {
  it.each([
    ['archive', 'vault_archived_error'],
    ['delete', 'vault_not_found_error'],
  ] as const)('do not run without a vault of theirs: %s', async (verb, type) => {
    const vaultId = await newVault();
    const { agentId, environmentId } = await makeAgent(api);
    const content = [{ type: 'text', text: 'x' }];
    const made = await api
      .post('/v1/deployments', {
        name: 'd',
        agent: agentId,
        environment_id: environmentId,
        initial_events: [{ type: 'user.message', content }],
        vault_ids: [vaultId],
      })
      .expect(200);
    const fire = (workflowId: string) =>
      withTransaction(api.pool, (tx) =>
        createDeploymentSession(tx, { deploymentId: made.body.id as string, workflowId, trigger: { type: 'manual' } }),
      );
    expect((await fire(`${vaultId}/1`))?.sessionId).toMatch(/^sesn_/);
    await client.beta.vaults[verb](vaultId);
    const run = await fire(`${vaultId}/2`);
    expect(run?.sessionId).toBeNull();
    const shown = await api.get(`/v1/deployment_runs/${run?.runId ?? ''}`).expect(200);
    expect(shown.body).toMatchObject({ status: 'failed', error: { type } });
    const paused = await api.get(`/v1/deployments/${made.body.id as string}`).expect(200);
    expect(paused.body).toMatchObject({ status: 'paused', paused_reason: { type: 'error', error: { type } } });
  });
});

describe('validation', () => {
  it('knows nothing without a broker, and is for OAuth only', async () => {
    const vaultId = await newVault();
    const place = { vault_id: vaultId };
    const mcp_server_url = 'https://mcp.example.com/';
    const { id } = await client.beta.vaults.credentials.create(vaultId, {
      auth: { type: 'mcp_oauth', mcp_server_url, access_token: canary() },
    });
    expect(await client.beta.vaults.credentials.mcpOAuthValidate(id, place)).toMatchObject({
      type: 'vault_credential_validation',
      credential_id: id,
      status: 'unknown',
      has_refresh_token: false,
    });
    const bearer = await client.beta.vaults.credentials.create(vaultId, {
      auth: { type: 'static_bearer', mcp_server_url, token: canary() },
    });
    await expect(client.beta.vaults.credentials.mcpOAuthValidate(bearer.id, place)).rejects.toBeInstanceOf(
      BadRequestError,
    );
    await expect(other.beta.vaults.credentials.mcpOAuthValidate(id, place)).rejects.toBeInstanceOf(NotFoundError);
  }, 60_000);
});

describe('bindings', () => {
  it('give a vault to sessions of an agent, a user and the team', async () => {
    const { agentId, environmentId } = await makeAgent(api);
    const session = async () => {
      const made = await api.post('/v1/sessions', { agent: agentId, environment_id: environmentId }).expect(200);
      await prepareCredentials(api.pool, made.body.id as string);
      return Object.keys(await placeholdersOf(api.pool, made.body.id as string)).toSorted();
    };
    expect(await session()).toEqual([]);
    const bindings: string[] = [];
    for (const target of [{ type: 'agent', id: agentId }, { type: 'user', id: 'ada' }, { type: 'team' }]) {
      const vaultId = await newVault();
      await client.beta.vaults.credentials.create(vaultId, { auth: variable(`OF_${target.type}`, canary()) });
      const path = `/v1/vaults/${vaultId}/bindings`;
      const made = await api.post(path, { target }).expect(200);
      expect(made.body).toMatchObject({
        type: 'vault_binding',
        vault_id: vaultId,
        target: { id: target.id ?? 'team-a' },
      });
      expect((await api.post(path, { target }).expect(200)).body.id).toBe(made.body.id);
      expect((await api.get(path).expect(200)).body.data).toEqual([made.body]);
      bindings.push(`${path}/${made.body.id as string}`);
    }
    expect(await session()).toEqual(['OF_agent', 'OF_team', 'OF_user']);
    for (const path of bindings) await api.delete(path).expect(200);
    expect(await session()).toEqual([]);
    const vaultId = await newVault();
    await api.post(`/v1/vaults/${vaultId}/bindings`, { target: { type: 'agent', id: 'agent_none' } }).expect(404);
  }, 60_000);
});
