import { randomBytes } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LocalProvider } from '../../activities/sandbox/local/provider.ts';
import type { SandboxRef } from '../../activities/sandbox/port.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { secureUpstream, UpstreamAuthority, type Upstream } from '../support/egress-bed.ts';
import { checkInvariants } from '../support/invariants.ts';
import { searchEverywhere } from '../support/secret-search.ts';
import { bash, scriptMessage, SessionDriver, STACK_TEST_MS, type ScriptStep } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const HOST = 'git.test';
const LOOK = 'ls -A /workspace; git -C shop status --porcelain; git -C shop log --format=%s; cat shop/.git/config';

describe('the worker is killed while a workspace is made', { timeout: STACK_TEST_MS * 2 }, () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-clone-'));
  const token = `canary-${randomBytes(16).toString('hex')}`;
  let upstream: Upstream;
  let stack: TestStack;
  let driver: SessionDriver;
  let environment: string;
  /** While it holds, requests for objects wait here. */
  let isHolding = false;
  let held: (() => void)[] = [];
  const served: string[] = [];

  /** A repository as plain files, behind a password. */
  const serveGit = (req: IncomingMessage, res: ServerResponse): void => {
    const [, , , name = ''] = /^\/(\w+)\/(\w+)\.git\/([^?]*)/.exec(req.url ?? '') ?? [];
    const expected = `Basic ${Buffer.from(`x-access-token:${token}`).toString('base64')}`;
    if (req.headers.authorization !== expected) {
      res.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end();
      return;
    }
    const answer = (): void => {
      try {
        const content = readFileSync(path.join(folder, 'shop', '.git', name));
        served.push(name);
        res.writeHead(200).end(content);
      } catch {
        res.writeHead(404).end();
      }
    };
    if (isHolding && name.startsWith('objects/')) held.push(answer);
    else answer();
  };

  beforeAll(async () => {
    const authority = new UpstreamAuthority();
    upstream = await secureUpstream(authority.issue(HOST), serveGit, 'http1');
    const [hosts, ca] = [path.join(folder, 'hosts'), path.join(folder, 'ca.pem')];
    writeFileSync(hosts, `127.0.0.1 ${HOST}\n`);
    writeFileSync(ca, authority.certificate);
    const git = (...args: string[]): void => {
      const as = ['-c', 'user.name=T', '-c', 'user.email=t@example.com'];
      execFileSync('git', [...as, '-C', path.join(folder, 'shop'), ...args], { stdio: 'pipe' });
    };
    mkdirSync(path.join(folder, 'shop'));
    git('init', '-q', '-b', 'main');
    writeFileSync(path.join(folder, 'shop', 'README'), 'the shop\n');
    git('add', '.');
    git('commit', '-q', '-m', 'the first commit');
    git('update-server-info');
    stack = await startStack({
      env: {
        LONGHAUL_EGRESS_HOSTS: hosts,
        LONGHAUL_EGRESS_UPSTREAM_CA_FILE: ca,
        LONGHAUL_MAINTENANCE_EVERY_MS: '86400000',
      },
    });
    driver = new SessionDriver(stack);
    const config = {
      type: 'cloud',
      networking: { type: 'limited', private_addresses: ['127.0.0.1'] },
      idle: { pause_after_seconds: 60, snapshot_after_seconds: 120 },
    };
    environment = (await driver.call('POST', '/v1/environments', { name: 'guarded', config })).body.id ?? '';
  });
  afterAll(async () => {
    await driver?.close();
    await stack?.stop();
    upstream?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const open = async (steps: ScriptStep[]): Promise<string> => {
    const answer = await driver.call('POST', '/v1/sessions', {
      agent: await driver.agent(),
      environment_id: environment,
      resources: [
        {
          type: 'github_repository',
          url: `https://${HOST}:${upstream.port}/acme/shop.git`,
          authorization_token: token,
          checkout: { type: 'branch', name: 'main' },
        },
      ],
      initial_events: [scriptMessage(steps)],
    });
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
  const sweep = async (): Promise<void> => {
    const workflowId = `maintenance/${randomBytes(4).toString('hex')}`;
    await (await driver.temporal()).workflow.execute('maintenance', { workflowId, taskQueue: 'longhaul' });
  };
  const refOf = async (session: string): Promise<SandboxRef> => {
    const rows = await driver.query<{ ref: SandboxRef }>(
      `SELECT ref FROM sandboxes WHERE session_id = $1 AND state <> 'destroyed'`,
      [session],
    );
    expect(rows).toHaveLength(1);
    return (rows[0] as { ref: SandboxRef }).ref;
  };
  /** One workspace for each session, sound sessions, and the token nowhere. */
  const check = async (...sessions: string[]): Promise<void> => {
    await sweep();
    const refs = await Promise.all(sessions.map(refOf));
    expect(driver.recorder.sandboxIds().toSorted()).toEqual(refs.map(({ id }) => id).toSorted());
    const temporal = await driver.temporal();
    for (const session of sessions) await checkInvariants(driver.query, session, { temporal });
    const found = await searchEverywhere({ query: driver.query, temporal, home: stack.home }, [token]);
    expect(found[token] ?? []).toEqual([]);
  };
  let first: string;

  it('in the middle of a clone: it goes on, once, and is whole', async () => {
    isHolding = true;
    first = await open([
      { tools: [bash(LOOK)] },
      { tools: [bash('git -C shop fetch 2>&1 && cat shop/README')] },
      { text: 'ok' },
    ]);
    await driver.until('git waits for an object', () => held.length > 0);
    const refsBefore = served.filter((name) => name === 'info/refs').length;
    await stack.killAndRecover('worker');
    isHolding = false;
    for (const answer of held) answer();
    held = [];
    await driver.quiet([first]);
    const [seen = '', fetched] = await results(first);
    const [names, ...rest] = seen.split('\n');
    expect([names, rest[0]]).toEqual(['shop', 'the first commit']);
    expect(seen).toContain('helper =');
    expect(seen).not.toContain(token);
    expect(fetched).toBe('the shop\n');
    // The clone asked for its references once, the fetch after it a second time.
    expect([refsBefore, served.filter((name) => name === 'info/refs').length]).toEqual([1, 2]);
    const steps = await driver.query<{ state: string }>(
      `SELECT payload->>'state' AS state FROM events
       WHERE session_id = $1 AND type = 'session.sandbox_step' AND payload->>'step' = 'repository.1' ORDER BY seq`,
      [first],
    );
    expect(steps).toEqual([{ state: 'running' }, { state: 'done' }]);
    expect(await driver.turnEnds(first)).toEqual(['end_turn']);
    await check(first);
  });

  it('in the middle of making a lost one from what was saved: there is one, whole, and the agent is told', async () => {
    const session = await open([
      { tools: [bash('head -c 80000000 /dev/urandom > big; sha256sum big > sum; echo mine >> shop/README')] },
      { text: 'ok' },
    ]);
    await driver.quiet([session]);
    await driver.query(
      `UPDATE sandboxes SET idle_since = now() - interval '200 s' WHERE session_id = $1 RETURNING id`,
      [session],
    );
    await sweep();
    await driver.untilSql(
      'it is saved',
      session,
      `EXISTS (SELECT 1 FROM sandboxes b WHERE b.session_id = s.id AND b.snapshot IS NOT NULL)`,
    );
    const rootDir = path.join(stack.home, 'sandboxes');
    const provider = new LocalProvider({ rootDir, logger: createLogger('test', 'silent') });
    const lost = await refOf(session);
    expect(await provider.destroy(lost)).toBe(true);
    const known = new Set(driver.recorder.sandboxIds());
    const whole = 'sha256sum -c --status sum && tail -n 1 shop/README';
    await driver.send(session, scriptMessage([{ tools: [bash(whole)] }, { tools: [bash(LOOK)] }, { text: 'ok' }]));
    const isBegun = (id: string): boolean => {
      const file = path.join(rootDir, id, 'box', 'workspace', 'big');
      return !known.has(id) && (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 0;
    };
    await driver.until('its files come back', () => driver.recorder.sandboxIds().some(isBegun));
    await stack.killAndRecover('worker');
    await driver.quiet([session]);
    const [, back, seen = ''] = await results(session);
    expect(back).toMatch(/^\[sandbox: .*this is another one.*saved at .*\]\nmine\n$/);
    expect(seen.split('\n').slice(0, 4)).toEqual(['big', 'shop', 'sum', ' M README']);
    expect(seen).toContain('helper =');
    expect(seen).not.toContain(token);
    expect((await refOf(session)).id).not.toBe(lost.id);
    expect(await driver.turnEnds(session)).toEqual(['end_turn', 'end_turn']);
    await check(first, session);
  });
});
