import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import * as sdk from 'e2b';
import * as older from 'e2b-older';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { OWN_SERVICES, ownServiceHost } from '../../contracts/harnesses.ts';
import { anyFreePort } from '../../cli/stack/ports.ts';
import { makeE2bBed, type E2bBed } from '../support/e2b-server.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';

const BROKER = fileURLToPath(new URL('../../dist/egress/main.js', import.meta.url));
const LONG_MS = 240_000;
const { Sandbox } = sdk;

const curl = async (sandbox: sdk.Sandbox, host: string): Promise<string> =>
  (await sandbox.commands.run(`curl -s --max-time 100 http://${host}/x`, { timeoutMs: 120_000 })).stdout;

interface Row {
  seq: number;
  team_id: string;
  session_id: string | null;
  decision: string;
  code: string | null;
  host: string;
  status: number | null;
}

describe.each(SANDBOX_MODES)('the network of E2B programs, $name', ({ uid }) => {
  let bed: E2bBed;
  let broker: ChildProcess;
  /** The internet of the test: the proxy behind the broker, which answers for every host. */
  let internet: http.Server;
  let settings: Record<string, string>;
  let opts: { apiKey: string; apiUrl: string; sandboxUrl: string; requestTimeoutMs: number };
  const made: sdk.Sandbox[] = [];

  const startBroker = async (): Promise<void> => {
    const url = new URL(settings['LONGHAUL_EGRESS_URL'] ?? '');
    broker = spawn(process.execPath, [BROKER], {
      env: {
        PATH: process.env['PATH'],
        DATABASE_URL: bed.databaseUrl,
        LONGHAUL_HOME: bed.home,
        LONGHAUL_EGRESS_PORT: url.port,
        LONGHAUL_EGRESS_TOKEN: settings['LONGHAUL_EGRESS_TOKEN'],
        LONGHAUL_PORTS_LISTEN: `127.0.0.1:${await anyFreePort()}`,
        LONGHAUL_VAULT_KEY: randomBytes(32).toString('base64'),
        VAULT_URL: `http://127.0.0.1:${(internet.address() as AddressInfo).port}`,
      },
      stdio: ['ignore', 'ignore', 'inherit'],
      ...(uid === null ? {} : { uid, gid: uid }),
    });
    await vi.waitFor(async () => expect((await fetch(`${url.origin}/healthz`)).status).toBe(200), {
      timeout: LONG_MS,
      interval: 100,
    });
  };
  const killBroker = async (): Promise<void> => {
    if (broker.exitCode !== null || broker.signalCode !== null) return;
    const closed = once(broker, 'close');
    broker.kill('SIGKILL');
    await closed;
  };

  beforeAll(async () => {
    internet = http.createServer((req, res) => void res.end(`echo of ${req.headers.host}`));
    await once(internet.listen(0, '127.0.0.1'), 'listening');
    bed = await makeE2bBed({}, uid);
    settings = {
      LONGHAUL_EGRESS_URL: `http://127.0.0.1:${await anyFreePort()}`,
      LONGHAUL_EGRESS_TOKEN: randomBytes(24).toString('hex'),
    };
    await startBroker();
    const { url } = await bed.start(0, settings);
    opts = { apiKey: bed.apiKey, apiUrl: url, sandboxUrl: url, requestTimeoutMs: 120_000 };
  }, LONG_MS);
  afterAll(async () => {
    for (const sandbox of made) await sandbox.kill();
    await killBroker();
    await bed.close();
    internet.close();
  }, LONG_MS);

  const create = async (given: Partial<sdk.SandboxOpts>, from = Sandbox): Promise<sdk.Sandbox> => {
    const sandbox = await from.create({ ...opts, ...given });
    made.push(sandbox);
    return sandbox;
  };
  const rowsOf = async (sandbox: sdk.Sandbox): Promise<Row[]> => {
    const result = await bed.pool.query<Row>(
      `SELECT seq, team_id, session_id, decision, code, host, status FROM egress_requests WHERE sandbox_id = $1 ORDER BY seq`,
      [sandbox.sandboxId],
    );
    return result.rows;
  };
  const audited = (sandbox: sdk.Sandbox, rows: object[]): Promise<void> =>
    vi.waitFor(async () => expect(await rowsOf(sandbox)).toMatchObject(rows), { timeout: LONG_MS, interval: 100 });

  it(
    'reach the hosts that allowOut names and no other, and both are recorded',
    async () => {
      const sandbox = await create({ network: { allowOut: ['echo.test', '*.wild.test'] } });
      expect(await curl(sandbox, 'echo.test')).toBe('echo of echo.test');
      expect(await curl(sandbox, 'a.wild.test')).toBe('echo of a.wild.test');
      const refused = await curl(sandbox, 'evil.test');
      expect(refused).toContain('host_not_allowed');
      expect(refused).toContain('network.allowOut');
      const whose = { team_id: 'default', session_id: null };
      await audited(sandbox, [
        { ...whose, seq: 1, decision: 'allow', host: 'echo.test', status: 200 },
        { ...whose, seq: 2, decision: 'allow', host: 'a.wild.test', status: 200 },
        { ...whose, seq: 3, decision: 'deny', host: 'evil.test', code: 'host_not_allowed', status: 403 },
      ]);
      expect((await sandbox.getInfo()).allowInternetAccess).toBe(false);
    },
    LONG_MS,
  );

  it(
    'reach nothing when they say nothing, also with an SDK that says true by itself; all public hosts when they say it',
    async () => {
      expect(await curl(await create({}), 'echo.test')).toContain('host_not_allowed');
      const before = (older as unknown as typeof sdk).Sandbox;
      expect(await curl(await create({}, before), 'echo.test')).toContain('host_not_allowed');
      const open = await create({ allowInternetAccess: true, network: { denyOut: ['198.51.0.0/16', '8.8.8.8'] } });
      expect(await curl(open, 'echo.test')).toBe('echo of echo.test');
      expect(await curl(open, '8.8.8.8')).toContain('rule_denied');
      expect(await curl(open, '1.1.1.1')).toBe('echo of 1.1.1.1');
      expect((await open.getInfo()).allowInternetAccess).toBe(true);
      // What harnesses of sessions get a key for.
      for (const service of OWN_SERVICES)
        expect(await curl(open, ownServiceHost(service))).toContain('host_not_allowed');
      for (const host of ['192.168.0.1', '10.0.0.1', '169.254.169.254']) {
        expect(await curl(open, host)).toContain('address_forbidden');
      }
      const named = await create({ network: { allowOut: ['10.0.0.0/8', '127.0.0.1'] } });
      expect(await curl(named, '10.0.0.1')).toContain('address_forbidden');
    },
    LONG_MS,
  );

  it(
    'follow new rules, a pause, and the death of the broker',
    async () => {
      const sandbox = await create({ network: { allowOut: ['echo.test'] } });
      await sandbox.updateNetwork({ allowOut: ['other.test'] });
      expect(await curl(sandbox, 'echo.test')).toContain('host_not_allowed');
      expect(await curl(sandbox, 'other.test')).toBe('echo of other.test');
      await sandbox.pause();
      await sandbox.connect();
      expect(await curl(sandbox, 'other.test')).toBe('echo of other.test');
      await killBroker();
      const alone = await create({ network: { allowOut: ['echo.test'] } });
      const isCutOff = await alone.commands.run('curl -s http://echo.test/x || echo none');
      expect(isCutOff.stdout).toBe('none\n');
      await startBroker();
      for (const [each, host] of [
        [sandbox, 'other.test'],
        [alone, 'echo.test'],
      ] as const) {
        await vi.waitFor(async () => expect(await curl(each, host).catch(String)).toBe(`echo of ${host}`), {
          timeout: LONG_MS,
          interval: 200,
        });
      }
      const rows = await rowsOf(sandbox);
      expect(rows.map(({ seq }) => seq)).toEqual(rows.map((_row, at) => at + 1));
    },
    LONG_MS,
  );

  it(
    'are open by default only on a server that was started so; what cannot be read is refused by name',
    async () => {
      const { url } = await bed.start(0, { ...settings, LONGHAUL_E2B_ALLOW_INTERNET: '1' });
      const there = { apiUrl: url, sandboxUrl: url };
      expect(await curl(await create(there), 'echo.test')).toBe('echo of echo.test');
      expect(await curl(await create({ ...there, allowInternetAccess: false }), 'echo.test')).toContain(
        'host_not_allowed',
      );
      await expect(create({ network: { denyOut: ['evil.test'] } })).rejects.toThrow('network.denyOut');
      await expect(create({ network: { allowOut: ['*.com'] } })).rejects.toThrow('network.allowOut');
    },
    LONG_MS,
  );
});
