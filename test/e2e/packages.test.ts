import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { npmRegistry, pipIndex } from '../doubles/package-registries.ts';
import { secureUpstream, UpstreamAuthority, type Upstream } from '../support/egress-bed.ts';
import { bash, scriptMessage, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const NPM = 'registry.npmjs.org';
const PIP = 'pypi.org';

const asked: string[] = [];

function noted(answer: RequestListener): RequestListener {
  return (req, res) => {
    asked.push(req.url ?? '');
    answer(req, res);
  };
}

// The real npm and pip against registries of the test that have the names of the real ones.
describe('packages of an environment', { timeout: STACK_TEST_MS }, () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-packages-'));
  let npm: Upstream;
  let pip: Upstream;
  let stack: TestStack;
  let driver: SessionDriver;
  beforeAll(async () => {
    const authority = new UpstreamAuthority();
    npm = await secureUpstream(
      authority.issue(NPM),
      noted((req, res) => npmRegistry(`https://${NPM}:${npm.port}`, req, res)),
    );
    pip = await secureUpstream(authority.issue(PIP), noted(pipIndex));
    const [hosts, ca] = [path.join(folder, 'hosts'), path.join(folder, 'ca.pem')];
    writeFileSync(hosts, `127.0.0.1 ${NPM} ${PIP}\n`);
    writeFileSync(ca, authority.certificate);
    stack = await startStack({ env: { LONGHAUL_EGRESS_HOSTS: hosts, LONGHAUL_EGRESS_UPSTREAM_CA_FILE: ca } });
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver?.close();
    await stack?.stop();
    npm?.close();
    pip?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const environment = async (isOpen: boolean): Promise<string> => {
    const answer = await driver.call('POST', '/v1/environments', {
      name: 'packages',
      config: {
        type: 'cloud',
        packages: { npm: ['@scope/hello@1.2.3'], pip: ['hello-pip==1.0'] },
        networking: { type: 'limited', allow_package_managers: isOpen, private_addresses: ['127.0.0.1'] },
        env: { npm_config_registry: `https://${NPM}:${npm.port}/`, PIP_INDEX_URL: `https://${PIP}:${pip.port}/simple` },
      },
    });
    expect([answer.status, answer.body.error]).toEqual([200, undefined]);
    return answer.body.id ?? '';
  };
  const used = `hello-npm; python3 -c 'import hello_pip; print(hello_pip.WORDS)'`;
  const elsewhere = `curl -sS -o /dev/null -w ' %{http_connect} %{http_code}' https://elsewhere.test/ 2>&1`;
  const play = async (environmentId: string): Promise<{ session: string; results: string[]; steps: string[] }> => {
    const body = {
      agent: await driver.agent(),
      environment_id: environmentId,
      initial_events: [scriptMessage([{ tools: [bash(used)] }, { tools: [bash(elsewhere)] }, { text: 'ok' }])],
    };
    const session = (await driver.call('POST', '/v1/sessions', body)).body.id ?? '';
    await driver.quiet([session]);
    const texts = await driver.query<{ text: string }>(
      `SELECT (SELECT string_agg(c->>'text', E'\\n') FROM jsonb_array_elements(payload->'content') AS c) AS text
       FROM events WHERE session_id = $1 AND type = 'agent.tool_result' ORDER BY seq`,
      [session],
    );
    const steps = await driver.query<{ step: string }>(
      `SELECT concat_ws(' ', payload->>'step', payload->>'state', payload->>'output') AS step
       FROM events WHERE session_id = $1 AND type LIKE 'session.sandbox_%' AND payload ? 'step' ORDER BY seq`,
      [session],
    );
    return { session, results: texts.map(({ text }) => text), steps: steps.map(({ step }) => step) };
  };
  const audited = async (session: string): Promise<string[]> => {
    const rows = await driver.query<{ row: string }>(
      `SELECT concat_ws(' ', host, decision, rule) AS row FROM egress_requests WHERE session_id = $1 ORDER BY seq`,
      [session],
    );
    return [...new Set(rows.map(({ row }) => row))];
  };

  it('are installed through the broker, work in the sandbox, and are there for the next session without another look', async () => {
    const id = await environment(true);
    const first = await play(id);
    expect(first.results[0], JSON.stringify(first.steps)).toBe('hello from npm\nhello from pip\n');
    expect(first.steps.map((step) => step.split(' ').slice(0, 2).join(' '))).toEqual([
      'packages.npm running',
      'packages.npm done',
      'packages.pip running',
      'packages.pip done',
    ]);
    expect(asked.some((url) => url.endsWith('.tgz'))).toBe(true);
    expect(asked.some((url) => url.endsWith('.whl'))).toBe(true);
    // The registries are open, nothing else is.
    expect(first.results[1]).toMatch(/ (403 000|200 403)$/m);
    await driver.until('both registries are in the audit', async () => {
      const rows = await audited(first.session);
      return [NPM, PIP].every((host) => rows.some((row) => row.startsWith(`${host} allow`)));
    });
    const before = asked.length;
    const second = await play(id);
    expect([second.results[0], second.steps]).toEqual([first.results[0], []]);
    expect(asked.length).toBe(before);
    const starts = await driver.query<{ kind: string | null }>(
      `SELECT start->>'kind' AS kind FROM sandboxes WHERE session_id = ANY($1) ORDER BY created_at`,
      [[first.session, second.session]],
    );
    expect(starts).toEqual([{ kind: null }, { kind: 'environment' }]);
  });

  it('are refused to an environment that does not open package managers, and the model is told why', async () => {
    const before = asked.length;
    const { results, steps } = await play(await environment(false));
    expect(results[0]).toMatch(/could not be prepared \(packages\.npm\)[^]*403 Forbidden/);
    expect(steps.some((step) => step.startsWith('packages.npm failed'))).toBe(true);
    expect(asked.length).toBe(before);
  });
});
