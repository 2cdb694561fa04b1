import { randomBytes } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Upstream } from '../support/egress-bed.ts';
import { secureUpstream, UpstreamAuthority } from '../support/egress-bed.ts';
import { searchEverywhere } from '../support/secret-search.ts';
import { bash, SessionDriver, STACK_TEST_MS, type ScriptStep, scriptMessage } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const canary = (name: string): string => `canary-${name}-${randomBytes(16).toString('hex')}`;
const HOST = 'api.test';

const variable = (name: string, value: string): object => ({
  auth: {
    type: 'environment_variable',
    secret_name: name,
    secret_value: value,
    networking: { type: 'limited', allowed_hosts: [HOST] },
  },
});

describe('secrets of a session', { timeout: STACK_TEST_MS }, () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-secrets-'));
  const [bearer, gitToken, setupToken] = [canary('bearer'), canary('git'), canary('setup')];
  const control = canary('control');
  let upstream: Upstream;
  let stack: TestStack;
  let driver: SessionDriver;
  const gitRequests: { path: string; authorization: string | undefined }[] = [];

  /** A repository as plain files, behind a password. */
  const serveGit = (req: IncomingMessage, res: ServerResponse): void => {
    const [, , , name = ''] = /^\/(\w+)\/(\w+)\.git\/([^?]*)/.exec(req.url ?? '') ?? [];
    gitRequests.push({ path: req.url ?? '', authorization: req.headers.authorization });
    const expected = `Basic ${Buffer.from(`x-access-token:${gitToken}`).toString('base64')}`;
    if (req.headers.authorization !== expected) {
      res.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end();
      return;
    }
    try {
      const content = readFileSync(path.join(folder, 'shop', '.git', name));
      res.writeHead(200).end(content);
    } catch {
      res.writeHead(404).end();
    }
  };

  beforeAll(async () => {
    const authority = new UpstreamAuthority();
    upstream = await secureUpstream(authority.issue(HOST), serveGit, 'http1');
    const [hosts, ca] = [path.join(folder, 'hosts'), path.join(folder, 'ca.pem')];
    writeFileSync(hosts, `127.0.0.1 ${HOST} other.test\n`);
    writeFileSync(ca, authority.certificate);
    const git = (...args: string[]): void => {
      const as = ['-c', 'user.name=T', '-c', 'user.email=t@example.com'];
      execFileSync('git', [...as, '-C', path.join(folder, 'shop'), ...args], { stdio: 'pipe' });
    };
    execFileSync('mkdir', ['-p', path.join(folder, 'shop')]);
    git('init', '-q', '-b', 'main');
    writeFileSync(path.join(folder, 'shop', 'README'), 'the shop\n');
    git('add', '.');
    git('commit', '-q', '-m', 'first');
    git('update-server-info');
    stack = await startStack({ env: { LONGHAUL_EGRESS_HOSTS: hosts, LONGHAUL_EGRESS_UPSTREAM_CA_FILE: ca } });
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver?.close();
    await stack?.stop();
    upstream?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const made = async (at: string, body: unknown): Promise<string> => {
    const answer = await driver.call('POST', at, body);
    expect([answer.status, answer.body.error]).toEqual([200, undefined]);
    return answer.body.id ?? '';
  };
  const results = async (session: string): Promise<string[]> => {
    const rows = await driver.query<{ text: string }>(
      `SELECT (SELECT string_agg(c->>'text', E'\\n') FROM jsonb_array_elements(payload->'content') AS c) AS text
       FROM events WHERE session_id = $1 AND type = 'agent.tool_result' ORDER BY seq`,
      [session],
    );
    return rows.map(({ text }) => text);
  };
  /** A session with both credentials and a repository of its own, and what its calls gave. */
  const played = async (steps: ScriptStep[]): Promise<{ session: string; told: string[] }> => {
    const vault = await made('/v1/vaults', { display_name: 'canaries' });
    await made(`/v1/vaults/${vault}/credentials`, variable('API_TOKEN', bearer));
    await made(`/v1/vaults/${vault}/credentials`, variable('SETUP_TOKEN', setupToken));
    const environment = await made('/v1/environments', {
      name: 'guarded',
      config: {
        type: 'cloud',
        networking: { type: 'limited', allowed_hosts: [HOST], private_addresses: ['127.0.0.1'] },
        setup_script: `curl -sS -H "x-key: $SETUP_TOKEN" https://${HOST}:${upstream.port}/echo/setup > /workspace/setup.json`,
      },
    });
    const session = await made('/v1/sessions', {
      agent: await driver.agent(),
      environment_id: environment,
      title: `a session named ${control}`,
      vault_ids: [vault],
      resources: [
        {
          type: 'github_repository',
          url: `https://${HOST}:${upstream.port}/acme/shop.git`,
          authorization_token: gitToken,
          checkout: { type: 'branch', name: 'main' },
        },
      ],
      initial_events: [scriptMessage(steps)],
    });
    await driver.quiet([session]);
    return { session, told: await results(session) };
  };

  it('are used where they belong, refused elsewhere, and found nowhere', async () => {
    const url = `https://${HOST}:${upstream.port}`;
    const { session, told } = await played([
      { tools: [bash(`curl -sS -H "authorization: Bearer $API_TOKEN" ${url}/echo/call`)] },
      {
        tools: [bash(`curl -sS -H "authorization: Bearer $API_TOKEN" https://other.test:${upstream.port}/echo/other`)],
      },
      { tools: [bash('cat shop/README && git -C shop fetch && env | sort')] },
      // The control: what is searched for below must be found where it was put.
      { tools: [bash(`echo ${control} > control; CONTROL=${control} nohup sleep 600 > /dev/null 2>&1 & sleep 0.2`)] },
      { text: 'done' },
    ]);
    const [call = '', other = '', inside = ''] = told;
    expect(told, JSON.stringify(told)).toHaveLength(4);
    const echoed = JSON.parse(call) as { headers: Record<string, string> };
    expect(echoed.headers['authorization']).toMatch(/^Bearer .{20,}/);
    expect(echoed.headers['authorization']).not.toContain(bearer);
    const seen = upstream.requests.map(({ url: at, headers }) => [at, headers.authorization ?? headers['x-key']]);
    expect(seen).toContainEqual(['/echo/call', `Bearer ${bearer}`]);
    expect(seen).toContainEqual(['/echo/setup', setupToken]);
    expect(other).toContain('placeholder_misused');
    expect(seen.some(([at]) => at === '/echo/other')).toBe(false);
    expect(inside).toContain('the shop');
    expect(
      gitRequests.some(({ path: at, authorization }) => at.includes('info/refs') && authorization !== undefined),
    ).toBe(true);
    const answer = await driver.call('GET', `/v1/sessions/${session}`);
    expect(answer.body['sandbox']).toMatchObject({
      state: 'running',
      controls: { network: { state: 'enforced' }, credentials: { state: 'enforced' } },
    });
    appendFileSync(path.join(stack.home, 'logs', 'worker.log'), `${control}\n`);

    const at = { query: driver.query, temporal: await driver.temporal(), home: stack.home };
    const secrets = [bearer, gitToken, setupToken];
    const found = await searchEverywhere(at, [...secrets, control]);
    expect(found[control]).toEqual(expect.arrayContaining(['database', 'environ', 'history', 'log', 'sandbox']));
    for (const secret of secrets) expect(found[secret] ?? []).toEqual([]);

    // With the session end its token, its placeholders and its sandbox.
    expect((await driver.call('POST', `/v1/sessions/${session}/archive`)).status).toBe(200);
    await driver.untilSql('it has ended', session, `s.status = 'terminated'`);
    await driver.untilSql(
      'nothing of it is left',
      session,
      `NOT EXISTS (SELECT 1 FROM sandboxes b WHERE b.session_id = s.id AND (b.state <> 'destroyed' OR b.egress_open))
       AND NOT EXISTS (SELECT 1 FROM session_credentials c WHERE c.session_id = s.id AND c.revoked_at IS NULL)
       AND NOT EXISTS (SELECT 1 FROM credentials c JOIN credential_versions v ON v.credential_id = c.id
         WHERE c.kind = 'git' AND v.sealed IS NOT NULL)`,
    );
  });
});
