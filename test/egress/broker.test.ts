import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import net, { type AddressInfo, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { readEgressConfig } from '../../egress/config.ts';
import { connectInside, listenInside } from '../../egress/namespace/porter.ts';
import {
  EgressBed,
  plainUpstream,
  secureUpstream,
  type EgressSandbox,
  type Rules,
  type Upstream,
} from '../support/egress-bed.ts';
import { LONG_MS, soon } from '../support/sandbox-commands.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';

const [ROOT = { name: '', uid: null }] = SANDBOX_MODES;
const RULES: Rules = { hosts: { 'api.test': {} }, addresses: ['127.0.0.1'] };

/** An upstream that answers when it is told to. */
async function holding(): Promise<{ port: number; arrived: Promise<unknown>; close(): void }> {
  const server = http.createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const arrived = once(server, 'request');
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { port: (server.address() as AddressInfo).port, arrived, close };
}

/** The status a sandbox sees, or what kept it from one. */
async function ask(sandbox: EgressSandbox, { port }: Upstream): Promise<string> {
  const line = `curl -sS https://api.test:${port}/echo -o /dev/null -w '%{http_code}' 2>&1`;
  return (await sandbox.shell(line)).stdout;
}

describe.each(SANDBOX_MODES)('a broker that dies, $name', (mode) => {
  let bed: EgressBed;
  let api: Upstream;
  beforeAll(async () => {
    bed = await EgressBed.start({ mode, rules: RULES });
    bed.name('api.test', '127.0.0.1');
    api = await secureUpstream(bed.authority.issue('api.test'));
  }, LONG_MS);
  afterAll(async () => {
    api?.close();
    await bed?.close();
  }, LONG_MS);

  it(
    'leaves its sandboxes without a network, and its successor listens again for all that run',
    async () => {
      const [one, two] = [await bed.sandbox('one'), await bed.sandbox('two')];
      expect([await ask(one, api), await ask(two, api)]).toEqual(['200', '200']);
      const trusted = bed.trustBundle;

      const upstream = await holding();
      const running = one.shell(`curl -sS http://api.test:${upstream.port}/held`);
      await upstream.arrived;
      await bed.killBroker();
      // Broken off, not answered by anybody.
      expect((await running).status).not.toMatchObject({ exitCode: 0 });
      expect((await running).stdout).toBe('');
      expect(await ask(one, api)).toMatch(/Failed to connect to 127.0.0.1 port 3128/);
      upstream.close();

      await bed.sandboxes.provider.destroy(two.ref, soon());
      await bed.startBroker();
      expect(bed.trustBundle).toBe(trusted);
      expect(await ask(one, api)).toBe('200');
      const said = bed.log().filter(({ type }) => type === 'uncaught' || type === 'unhandled');
      expect(said).toEqual([]);
    },
    LONG_MS,
  );

  it(
    'attaching again changes nothing; another session is refused; detaching ends it',
    async () => {
      const sandbox = await bed.sandbox('again');
      const kept = await connectInside(sandbox.point, 3128);
      expect(await bed.client.attach(sandbox.ref.id, sandbox.sessionId, sandbox.point)).toEqual({
        type: 'listener',
        address: '127.0.0.1:3128',
      });
      expect(kept.destroyed).toBe(false);
      await expect(bed.client.attach(sandbox.ref.id, 'session-other', sandbox.point)).rejects.toThrow(
        /another session/,
      );
      const closed = once(kept, 'close');
      kept.resume();
      bed.forget(sandbox.ref.id);
      expect(await bed.client.detach(sandbox.ref.id)).toBe(true);
      await closed;
      expect(await bed.client.detach(sandbox.ref.id)).toBe(false);
      await expect(connectInside(sandbox.point, 3128)).rejects.toThrow(/refused/);
    },
    LONG_MS,
  );

  it(
    'many attach at once',
    async () => {
      const sandbox = await bed.sandbox('many');
      await bed.client.detach(sandbox.ref.id);
      const all = Array.from({ length: 20 }, () => bed.client.attach(sandbox.ref.id, sandbox.sessionId, sandbox.point));
      expect(new Set((await Promise.all(all)).map(({ type }) => type))).toEqual(new Set(['listener']));
      expect(
        (await sandbox.shell(`curl -sS https://api.test:${api.port}/echo -o /dev/null -w '%{http_code}'`)).stdout,
      ).toBe('200');
    },
    LONG_MS,
  );

  it(
    'a process that is not the one meant, or has no network of its own, is not joined',
    async () => {
      const { point } = await bed.sandbox('meant');
      await expect(bed.client.attach('x', 's', { ...point, startTime: '1' })).rejects.toThrow(/gone/);
      await expect(listenInside({ pid: point.pid, startTime: '1' }, 4_000)).rejects.toMatchObject({
        code: 'sandbox_lost',
      });
      const self = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]?.split(' ')[19] ?? '';
      await expect(listenInside({ pid: process.pid, startTime: self }, 4_000)).rejects.toThrow(
        /sandbox_unsupported|no network of its own|cannot be joined/,
      );
    },
    LONG_MS,
  );

  it(
    'a listener somebody else has taken is told, and costs nothing',
    async () => {
      const sandbox = await bed.sandbox('taken');
      await bed.client.detach(sandbox.ref.id);
      const squatter = await listenInside(sandbox.point, 3128);
      await expect(bed.client.attach(sandbox.ref.id, sandbox.sessionId, sandbox.point)).rejects.toThrow(/in use/);
      squatter.close();
      await bed.client.attach(sandbox.ref.id, sandbox.sessionId, sandbox.point);
    },
    LONG_MS,
  );
});

describe('the control interface', () => {
  let bed: EgressBed;
  beforeAll(async () => {
    bed = await EgressBed.start({ mode: ROOT, rules: RULES });
  }, LONG_MS);
  afterAll(() => bed?.close(), LONG_MS);

  const call = async (
    method: string,
    path: string,
    body?: string,
    token?: string,
  ): Promise<{ status: number; text: string }> => {
    const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const response = await fetch(`http://127.0.0.1:${bed.port}${path}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body }),
    });
    return { status: response.status, text: await response.text() };
  };
  const TOKEN = 'a token of the test, long enough for the broker';

  it('tells strangers that it lives and whom to trust, and nothing else', async () => {
    expect((await call('GET', '/healthz')).status).toBe(200);
    const ca = await call('GET', '/ca.pem');
    expect(bed.trustBundle).toContain(ca.text);
    expect(ca.text).not.toContain('PRIVATE');
    const routes = [
      ['PUT', '/sandboxes/x'],
      ['DELETE', '/sandboxes/x'],
      ['POST', '/sessions/x/refresh'],
      ['POST', '/redact'],
      ['GET', '/metrics'],
      ['GET', '/x'],
    ];
    for (const [method = '', path = ''] of routes) {
      expect((await call(method, path, method === 'GET' ? undefined : '{}')).status, path).toBe(401);
      expect((await call(method, path, method === 'GET' ? undefined : '{}', `${TOKEN}x`)).status, path).toBe(401);
    }
  });

  it('names what is wrong', async () => {
    expect(await call('PUT', '/sandboxes/x', '{"sessionId":"s"}', TOKEN)).toMatchObject({
      status: 400,
      text: expect.stringContaining('point'),
    });
    expect(await call('PUT', '/sandboxes/x', '{"sessionId":"","point":null}', TOKEN)).toMatchObject({ status: 400 });
    const point = { type: 'namespace', pid: 1, startTime: '1; rm' };
    expect(await call('PUT', '/sandboxes/x', JSON.stringify({ sessionId: 's', point }), TOKEN)).toMatchObject({
      status: 400,
    });
    expect(await call('PUT', `/sandboxes/${'x'.repeat(200)}`, '{}', TOKEN)).toMatchObject({ status: 400 });
    expect(await call('PUT', '/sandboxes/%ff', '{}', TOKEN)).toMatchObject({ status: 400 });
    expect(await call('POST', '/redact', 'nonsense', TOKEN)).toMatchObject({ status: 400 });
    expect(
      await call('POST', '/redact', JSON.stringify({ sessionId: 's', texts: ['x'.repeat(9_000_000)] }), TOKEN),
    ).toMatchObject({ status: 413 });
    expect(await call('GET', '/nowhere', undefined, TOKEN)).toMatchObject({ status: 404 });
    expect(await call('GET', '/metrics', undefined, TOKEN)).toMatchObject({ status: 200 });
    expect(await call('PUT', '/sandboxes/x', '{"sessionId":"s","point":null}', TOKEN)).toMatchObject({
      status: expect.any(Number) as number,
      text: expect.stringContaining('LONGHAUL_EGRESS_PUBLIC'),
    });
  });
});

describe('sandboxes that are elsewhere', () => {
  let bed: EgressBed;
  let plain: Upstream;
  let port: number;
  beforeAll(async () => {
    const probe = net.createServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    ({ port } = probe.address() as AddressInfo);
    probe.close();
    bed = await EgressBed.start({ mode: ROOT, rules: RULES, env: { LONGHAUL_EGRESS_PUBLIC: `127.0.0.1:${port}` } });
    bed.name('api.test', '127.0.0.1');
    plain = await plainUpstream();
  }, LONG_MS);
  afterAll(async () => {
    plain?.close();
    await bed?.close();
  }, LONG_MS);

  const said = async (bytes: string): Promise<string> => {
    const socket: Socket = net.connect(port, '127.0.0.1');
    socket.write(bytes);
    let text = '';
    for await (const chunk of socket) text += String(chunk);
    return text;
  };
  const askAs = (identity: string | null): Promise<string> => {
    const line = identity === null ? '' : `Proxy-Authorization: Basic ${Buffer.from(identity).toString('base64')}\r\n`;
    return said(
      `GET http://api.test:${plain.port}/echo HTTP/1.1\r\nHost: api.test:${plain.port}\r\n${line}Connection: close\r\n\r\n`,
    );
  };

  it(
    'say whose they are, with each request, also to a broker that has just come back',
    async () => {
      bed.know('remote-one', 'session-one', null);
      bed.know('remote-two', 'session-two', null);
      const access = await bed.client.attach('remote-one', 'session-one', null);
      if (access.type !== 'proxy') throw new Error('no proxy');
      expect(access).toMatchObject({ host: '127.0.0.1', port, isTls: false, username: 'remote-one' });
      expect(access.password.length).toBeGreaterThanOrEqual(43);
      expect(await bed.client.attach('remote-one', 'session-one', null)).toEqual(access);
      const good = `remote-one:${access.password}`;
      expect(await askAs(good)).toMatch(/^HTTP\/1.1 200 OK/);
      // It is for the proxy: the upstream never sees it.
      expect(JSON.stringify(plain.requests)).not.toContain(access.password);
      expect(JSON.stringify(plain.requests)).not.toContain('proxy-authorization');
      await vi.waitFor(() => expect(bed.log().at(-1)).toMatchObject({ type: 'record', sandboxId: 'remote-one' }), {
        timeout: LONG_MS,
      });
      const refused = [
        null,
        'remote-one:',
        `remote-one:${access.password}x`,
        `remote-two:${access.password}`,
        `${access.password}:remote-one`,
        'nonsense',
      ];
      for (const identity of refused) {
        expect(await askAs(identity)).toMatch(/^HTTP\/1.1 407 [\s\S]*proxy-authenticate: Basic/);
      }
      expect(await said(`CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n`)).toMatch(/^HTTP\/1.1 407 /);

      await bed.killBroker();
      await bed.startBroker();
      expect(await askAs(good)).toMatch(/^HTTP\/1.1 200 OK/);
      bed.forget('remote-one');
      await bed.client.detach('remote-one');
      expect(await askAs(good)).toMatch(/^HTTP\/1.1 407 /);
    },
    LONG_MS,
  );

  it(
    'one connection is one sandbox',
    async () => {
      const identities = [];
      for (const name of ['remote-a', 'remote-b']) {
        bed.know(name, `session-${name}`, null);
        const access = await bed.client.attach(name, `session-${name}`, null);
        if (access.type === 'proxy') identities.push(Buffer.from(`${name}:${access.password}`).toString('base64'));
      }
      const requests = identities.map(
        (identity) =>
          `GET http://api.test:${plain.port}/echo HTTP/1.1\r\nHost: api.test:${plain.port}\r\nProxy-Authorization: Basic ${identity}\r\n\r\n`,
      );
      const text = await said(requests.join(''));
      expect(text.match(/HTTP\/1.1 200 OK/g)?.length ?? 0).toBeLessThanOrEqual(1);
      expect(bed.log().filter(({ sandboxId, type }) => sandboxId === 'remote-b' && type === 'record')).toEqual([]);
    },
    LONG_MS,
  );
});

describe('behind another egress proxy', () => {
  let bed: EgressBed;
  let api: Upstream;
  let plain: Upstream;
  let proxy: http.Server;
  const asked: { line: string; identity: string | undefined }[] = [];
  beforeAll(async () => {
    proxy = http.createServer((req, res) => {
      asked.push({ line: `${req.method} ${req.url}`, identity: req.headers['proxy-authorization'] });
      const url = new URL(req.url ?? '');
      const onward = http.request({
        host: '127.0.0.1',
        port: url.port,
        path: url.pathname,
        method: req.method,
        headers: req.headers,
      });
      onward.on('response', (answer) => answer.pipe(res.writeHead(answer.statusCode ?? 502, answer.headers)));
      req.pipe(onward);
    });
    proxy.on('connect', (req, socket: Socket) => {
      asked.push({ line: `CONNECT ${req.url}`, identity: req.headers['proxy-authorization'] });
      if (req.url?.startsWith('closed.test') === true) {
        socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
        return;
      }
      const onward = net.connect(Number(req.url?.split(':')[1]), '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 OK\r\nX-More: 1\r\n\r\n');
        socket.pipe(onward).pipe(socket);
      });
      onward.on('error', () => socket.destroy());
      socket.on('error', () => onward.destroy());
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const { port } = proxy.address() as AddressInfo;
    const env = { VAULT_URL: `http://127.0.0.1:${port}`, VAULT_PROXY_TOKEN: 'canary-of-the-parent' };
    bed = await EgressBed.start({
      mode: ROOT,
      rules: { hosts: { 'api.test': {}, 'closed.test': {} }, addresses: [] },
      env,
    });
    api = await secureUpstream(bed.authority.issue('api.test'));
    plain = await plainUpstream();
  }, LONG_MS);
  beforeEach(() => void asked.splice(0));
  afterEach(() => expect(bed.log().filter(({ type }) => /^un(caught|handled)$/.test(type))).toEqual([]));
  afterAll(async () => {
    for (const each of [api, plain]) each?.close();
    proxy?.close();
    proxy?.closeAllConnections();
    await bed?.close();
  }, LONG_MS);

  it(
    'all goes through it, with its token, which no sandbox and no upstream sees',
    async () => {
      const sandbox = await bed.sandbox('chained');
      const identity = `Basic ${Buffer.from('x:canary-of-the-parent').toString('base64')}`;
      const secure = await sandbox.shell(`curl -sS https://api.test:${api.port}/echo`);
      expect(JSON.parse(secure.stdout)).toMatchObject({ url: '/echo' });
      const clear = await sandbox.shell(`curl -sS http://api.test:${plain.port}/echo`);
      expect(JSON.parse(clear.stdout)).toMatchObject({ url: '/echo' });
      expect(asked).toEqual([
        { line: `CONNECT api.test:${api.port}`, identity },
        { line: `GET http://api.test:${plain.port}/echo`, identity },
      ]);
      expect(JSON.stringify(api.requests)).not.toContain('canary');
      const closed = await sandbox.shell(`curl -sS https://closed.test:${api.port}/echo`);
      expect(closed.stdout).toContain('proxy_refused');
      expect((await sandbox.shell('env; cat /proc/*/environ 2>/dev/null')).stdout).not.toContain('canary');
    },
    LONG_MS,
  );
});

describe('the configuration', () => {
  const base = { DATABASE_URL: 'postgres://x', LONGHAUL_EGRESS_TOKEN: 'x'.repeat(32) };
  it.each([
    [{ LONGHAUL_EGRESS_HOST: '0.0.0.0' }, /refusing to bind/],
    [{ LONGHAUL_EGRESS_TOKEN: 'short' }, /at least 32/],
    [{ LONGHAUL_EGRESS_TOKEN: '' }, /LONGHAUL_EGRESS_TOKEN_FILE/],
    [{ DATABASE_URL: '' }, /DATABASE_URL/],
    [{ LONGHAUL_EGRESS_PUBLIC: '0.0.0.0:3129' }, /without TLS/],
    [{ LONGHAUL_EGRESS_PUBLIC: 'nonsense' }, /host:port/],
    [{ LONGHAUL_EGRESS_PUBLIC: '0.0.0.0:3129', LONGHAUL_EGRESS_PUBLIC_CERT_FILE: 'x' }, /go together/],
    [{ LONGHAUL_EGRESS_CONNECTIONS: '-1' }, /whole number/],
    [{ VAULT_URL: 'ftp://x' }, /VAULT_URL/],
  ])('%j is refused', (change, reason) => expect(() => readEgressConfig({ ...base, ...change })).toThrow(reason));

  it('a public address needs TLS or to be said twice', () => {
    const tls = { LONGHAUL_EGRESS_PUBLIC_CERT_FILE: 'c', LONGHAUL_EGRESS_PUBLIC_KEY_FILE: 'k' };
    const open = { ...base, LONGHAUL_EGRESS_PUBLIC: '[::]:3129' };
    expect(readEgressConfig({ ...open, ...tls }).public?.tls).toEqual({ certFile: 'c', keyFile: 'k' });
    expect(readEgressConfig({ ...open, LONGHAUL_ALLOW_PUBLIC: '1' }).public?.tls).toBeNull();
    expect(
      readEgressConfig({ ...open, ...tls, LONGHAUL_EGRESS_PUBLIC_ADDRESS: 'proxy.example.com:443' }).public?.advertised,
    ).toEqual({
      host: 'proxy.example.com',
      port: 443,
    });
  });
});
