import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { engineObstacle, startEngine, type TestEngine } from '../support/docker-engine.ts';
import { secureUpstream, UpstreamAuthority, type Upstream } from '../support/egress-bed.ts';
import { checkInvariants } from '../support/invariants.ts';
import { searchEverywhere } from '../support/secret-search.ts';
import { bash, scriptMessage, SessionDriver, type ScriptStep } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const obstacle = engineObstacle();
const HOST = 'api.test';
const LONG_MS = 480_000;

/** Requests that wait for the test. */
const held: ServerResponse[] = [];

function hold(_req: IncomingMessage, res: ServerResponse): void {
  held.push(res);
}

interface Container {
  Id: string;
  State: string;
  Labels: Record<string, string>;
}

const SKIPPED = obstacle === null ? '' : `: SKIPPED, ${obstacle}`;

describe.skipIf(obstacle !== null)(`a session in a docker sandbox${SKIPPED}`, { timeout: LONG_MS }, () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-docker-session-'));
  const secret = `canary-${randomBytes(16).toString('hex')}`;
  let engine: TestEngine;
  let upstream: Upstream;
  let stack: TestStack;
  let driver: SessionDriver;

  beforeAll(async () => {
    engine = await startEngine(['curl']);
    const authority = new UpstreamAuthority();
    upstream = await secureUpstream(authority.issue(HOST), hold, 'http1');
    const [hosts, ca] = [path.join(folder, 'hosts'), path.join(folder, 'ca.pem')];
    writeFileSync(hosts, `127.0.0.1 ${HOST} other.test\n`);
    writeFileSync(ca, authority.certificate);
    stack = await startStack({
      env: {
        LONGHAUL_DOCKER_HOST: engine.host,
        LONGHAUL_DOCKER_IMAGE: engine.image,
        LONGHAUL_DOCKER_PULL: 'never',
        LONGHAUL_EGRESS_HOSTS: hosts,
        LONGHAUL_EGRESS_UPSTREAM_CA_FILE: ca,
        // The sweep runs when the test asks for it.
        LONGHAUL_MAINTENANCE_EVERY_MS: '86400000',
      },
    });
    driver = new SessionDriver(stack);
  }, LONG_MS);
  afterAll(async () => {
    await driver?.close();
    await stack?.stop();
    upstream?.close();
    await engine?.stop();
    rmSync(folder, { recursive: true, force: true });
  }, LONG_MS);

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
  const containers = (): Promise<Container[]> => engine.ask<Container[]>('/containers/json?all=1');
  /** What the last turn's calls gave. */
  const say = async (session: string, commands: string[]): Promise<string[]> => {
    const before = (await results(session)).length;
    const steps: ScriptStep[] = [...commands.map((command) => ({ tools: [bash(command)] })), { text: 'ok' }];
    await driver.send(session, scriptMessage(steps));
    await driver.quiet([session]);
    return (await results(session)).slice(before);
  };

  it('goes out through the broker, outlives the worker, sleeps with its memory, and ends once with nothing left', async () => {
    const vault = await made('/v1/vaults', { display_name: 'canaries' });
    const networking = { type: 'limited', allowed_hosts: [HOST] };
    await made(`/v1/vaults/${vault}/credentials`, {
      auth: { type: 'environment_variable', secret_name: 'API_TOKEN', secret_value: secret, networking },
    });
    const environment = await made('/v1/environments', {
      name: 'docker',
      config: {
        type: 'cloud',
        provider: 'docker',
        networking: { ...networking, private_addresses: ['127.0.0.1'] },
        idle: { pause_after_seconds: 600, keep_memory: true },
      },
    });
    const url = (host: string, at: string): string => `https://${host}:${upstream.port}${at}`;
    const get = `curl -sS -H "authorization: Bearer $API_TOKEN"`;
    const commands = [
      `${get} ${url(HOST, '/echo/call')}`,
      `curl -sS -w ' %{http_connect} %{http_code}' ${url('other.test', '/echo/other')} 2>&1`,
      `echo begins >> marks; sleep 3600 > /dev/null 2>&1 & echo $! > pid; ${get} ${url(HOST, '/hold')}; echo ends >> marks`,
      'cat marks; id -u',
    ];
    const session = await made('/v1/sessions', {
      agent: await driver.agent(),
      environment_id: environment,
      vault_ids: [vault],
      initial_events: [scriptMessage([...commands.map((command) => ({ tools: [bash(command)] })), { text: 'ok' }])],
    });
    await driver.until('a command waits for its answer', () => held.length > 0);
    await stack.killAndRecover('worker');
    for (const res of held) res.writeHead(200).end('held');
    await driver.quiet([session]);

    const [call = '', other = '', waited, marks] = await results(session);
    expect(JSON.parse(call)).toMatchObject({ method: 'GET', url: '/echo/call' });
    expect(call).not.toContain(secret);
    expect(upstream.requests.map(({ url: at, headers }) => [at, headers.authorization])).toEqual([
      ['/echo/call', `Bearer ${secret}`],
    ]);
    expect(other).toMatch(/ (403 000|200 403)$/m);
    expect([waited, held.length]).toEqual(['held', 1]);
    expect(marks).toBe('begins\nends\n1000\n');

    // Each request is there once, in order; what was refused has gone nowhere.
    let rows: Record<string, unknown>[] = [];
    await driver.until('the audit is complete', async () => {
      const { body } = await driver.call('GET', `/v1/sessions/${session}/egress?order=asc`);
      rows = body['data'] as Record<string, unknown>[];
      return rows.length >= 3 && rows.every(({ state }) => state !== 'started');
    });
    expect(rows.map(({ seq }) => seq)).toEqual(rows.map((_, index) => index + 1));
    const refused = rows.filter(({ decision }) => decision === 'deny');
    expect(refused.map(({ host, state }) => [host, state])).toEqual([['other.test', 'denied']]);
    const allowed = rows.filter(({ decision }) => decision === 'allow');
    expect(allowed.map(({ host, path: at, status, credentials }) => [host, at, status, credentials])).toEqual([
      [HOST, '/echo/call', 200, ['API_TOKEN']],
      [HOST, '/hold', 200, ['API_TOKEN']],
    ]);
    const shown = (await driver.call('GET', `/v1/sessions/${session}`)).body['sandbox'];
    expect(shown).toMatchObject({
      provider: 'docker',
      state: 'running',
      controls: { network: { state: 'enforced' }, credentials: { state: 'enforced' } },
    });
    expect(await containers()).toHaveLength(1);

    // Asleep its processes stand still; awake they go on, and so does its way out.
    await driver.query(
      `UPDATE sandboxes SET idle_since = idle_since - interval '700 s' WHERE session_id = $1 RETURNING id`,
      [session],
    );
    const temporal = await driver.temporal();
    const workflowId = `maintenance/${randomBytes(4).toString('hex')}`;
    await temporal.workflow.execute('maintenance', { workflowId, taskQueue: 'longhaul' });
    expect((await containers()).map(({ State }) => State)).toEqual(['paused']);
    const woken = await say(session, [
      'kill -0 "$(cat pid)" && cat marks',
      `${get} -o /dev/null -w '%{http_code}' ${url(HOST, '/echo/again')}`,
    ]);
    expect(woken).toEqual(['begins\nends\n', '200']);
    expect(upstream.requests.at(-1)?.headers.authorization).toBe(`Bearer ${secret}`);
    const found = await searchEverywhere({ query: driver.query, temporal, home: stack.home }, [secret]);
    expect(found[secret] ?? []).toEqual([]);

    // The worker dies at its end, too.
    expect((await driver.call('POST', `/v1/sessions/${session}/archive`)).status).toBe(200);
    driver.kill('worker');
    await driver.untilSql('it has ended', session, `s.status = 'terminated'`);
    await driver.untilSql(
      'nothing of it is left',
      session,
      `NOT EXISTS (SELECT 1 FROM sandboxes b WHERE b.session_id = s.id AND (b.state <> 'destroyed' OR b.egress_open))`,
    );
    const handle = temporal.workflow.getHandle(`session/${session}`);
    await driver.until('its workflow ended', async () => (await handle.describe()).status.name === 'COMPLETED');
    expect(await containers()).toEqual([]);
    expect(await driver.turnEnds(session)).toEqual(['end_turn', 'end_turn']);
    const ends = await driver.query<{ count: number }>(
      `SELECT count(*)::int AS count FROM events WHERE session_id = $1 AND type = 'session.status_terminated'`,
      [session],
    );
    expect(ends).toEqual([{ count: 1 }]);
    await checkInvariants(driver.query, session, { temporal });
  });
});
