import { once } from 'node:events';
import type http from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import os from 'node:os';
import tls from 'node:tls';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { connectInside } from '../../egress/namespace/porter.ts';
import {
  EgressBed,
  plainUpstream,
  secureUpstream,
  type EgressSandbox,
  type LogEntry,
  type Rules,
  type Upstream,
} from '../support/egress-bed.ts';
import { LONG_MS } from '../support/sandbox-commands.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';

const [MODE = { name: '', uid: null }] = SANDBOX_MODES;
const RULES: Rules = {
  hosts: { 'api.test': { deny: ['/denied'] }, 'other.test': {}, 'pinned.test': { passthrough: true }, '127.0.0.1': {} },
  addresses: ['127.0.0.1'],
};

/** A program of the sandbox that says exactly these bytes to the proxy. */
class Client {
  readonly socket: Socket;
  text = '';

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => (this.text += chunk.toString('latin1'))).on('error', () => undefined);
  }

  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.text)) {
      if (this.socket.destroyed || this.socket.readableEnded) throw new Error(`the proxy hung up after: ${this.text}`);
      await Promise.race([once(this.socket, 'data'), once(this.socket, 'end'), once(this.socket, 'close')]);
    }
    return this.text;
  }

  async end(): Promise<string> {
    if (!this.socket.destroyed && !this.socket.readableEnded)
      await Promise.race([once(this.socket, 'end'), once(this.socket, 'close')]);
    return this.text;
  }
}

describe('what the data plane refuses by itself', () => {
  let bed: EgressBed;
  let sandbox: EgressSandbox;
  let api: Upstream;
  let plain: Upstream;

  const answer = (req: IncomingMessage, res: ServerResponse): void => {
    if (req.url === '/to-private') res.writeHead(302, { location: `http://internal.test:${plain.port}/secret` }).end();
    else if (req.url === '/endless') {
      const more = (): void => {
        while (!res.destroyed && res.write(Buffer.alloc(65_536))) continue;
        if (!res.destroyed) res.once('drain', more);
      };
      more();
    } else req.resume().on('end', () => res.end('reached'));
  };

  beforeAll(async () => {
    bed = await EgressBed.start({
      mode: MODE,
      rules: RULES,
      env: { LONGHAUL_EGRESS_HANDSHAKE_MS: '2000', LONGHAUL_EGRESS_CONNECTIONS: '20' },
    });
    for (const host of ['api.test', 'other.test', 'pinned.test', 'alias.test']) bed.name(host, '127.0.0.1');
    api = await secureUpstream(bed.authority.issue('api.test'), answer);
    plain = await plainUpstream(answer);
    sandbox = await bed.sandbox('refusals');
  }, LONG_MS);
  beforeEach(() => bed.rules(RULES));
  afterAll(async () => {
    api?.close();
    plain?.close();
    await bed?.close();
  }, LONG_MS);

  const client = async (bytes: string): Promise<Client> => {
    const made = new Client(await connectInside(sandbox.point, 3128));
    made.socket.write(Buffer.from(bytes, 'latin1'));
    return made;
  };
  /** Says it, and reads until the proxy hangs up. */
  const said = async (bytes: string): Promise<string> => (await client(bytes)).end();
  /** The engine is told at the end of a request, which may be after its last byte. */
  const logged = (entry: object): Promise<void> =>
    vi.waitFor(() => expect(bed.log()).toContainEqual(expect.objectContaining(entry)), { timeout: LONG_MS });
  const secured = async (connect: string, name: string, bytes: string): Promise<Client> => {
    const outer = await client(`CONNECT ${connect} HTTP/1.1\r\nHost: ${connect}\r\n\r\n`);
    await outer.until(/200 Connection Established\r\n\r\n/);
    outer.socket.removeAllListeners('data');
    const inner = tls.connect({
      socket: outer.socket,
      servername: name,
      ca: bed.trustBundle,
      rejectUnauthorized: true,
    });
    await once(inner, 'secureConnect');
    inner.write(bytes);
    return new Client(inner);
  };
  const last = (): LogEntry | undefined => bed.log().findLast(({ type }) => type === 'refused' || type === 'denied');

  it.each([
    '127.1',
    '0177.0.0.1',
    '2130706433',
    '0x7f000001',
    '[::1%25lo]',
    'a%2etest',
    'api.test@other.test',
    'api.test:',
    '',
  ])(
    'CONNECT to %j is ambiguous',
    async (host) => {
      const text = await said(`CONNECT ${host}:443 HTTP/1.1\r\nHost: x\r\n\r\n`);
      expect(text).toMatch(/^HTTP\/1.1 400 /);
    },
    LONG_MS,
  );

  it.each(['API.TEST', 'api.test.', 'Api.Test.'])(
    'CONNECT to %s is what the rules say about api.test',
    async (host) => {
      const inner = await secured(
        `${host}:${api.port}`,
        'api.test',
        `GET /x HTTP/1.1\r\nHost: ${host}:${api.port}\r\nConnection: close\r\n\r\n`,
      );
      expect(await inner.end()).toMatch(/200 OK[\s\S]*reached/);
    },
    LONG_MS,
  );

  it(
    'a host the rules do not know gets a reason, and so does a path they refuse',
    async () => {
      const tunnel = await said('CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n');
      expect(tunnel).toMatch(/^HTTP\/1.1 403 Forbidden[\s\S]*x-longhaul-egress: host_not_allowed[\s\S]*"message":"/);
      const absolute = await client('GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n');
      expect(await absolute.end()).toMatch(/^HTTP\/1.1 403 Forbidden[\s\S]*host_not_allowed/);
      const path = await secured(
        `api.test:${api.port}`,
        'api.test',
        `GET /denied HTTP/1.1\r\nHost: api.test:${api.port}\r\nConnection: close\r\n\r\n`,
      );
      expect(await path.end()).toMatch(/403 Forbidden[\s\S]*path_not_allowed/);
    },
    LONG_MS,
  );

  it(
    'Host, the name in the hello and the target of the tunnel must be one',
    async () => {
      const at = `api.test:${api.port}`;
      const close = 'Connection: close\r\n\r\n';
      const other = await secured(at, 'api.test', `GET /x HTTP/1.1\r\nHost: other.test\r\n${close}`);
      expect(await other.end()).toMatch(/421 Misdirected Request[\s\S]*misdirected/);
      expect(last()).toMatchObject({ type: 'refused', code: 'misdirected', status: 421, target: { host: 'api.test' } });
      const port = await secured(at, 'api.test', `GET /x HTTP/1.1\r\nHost: api.test:1\r\n${close}`);
      expect(await port.end()).toMatch(/421 /);
      const fronted = await secured(at, 'other.test', `GET /x HTTP/1.1\r\nHost: ${at}\r\n${close}`);
      expect(await fronted.end()).toMatch(/421 [\s\S]*names other.test/);
      const twice = await secured(at, 'api.test', `GET /x HTTP/1.1\r\nHost: ${at}\r\nHost: ${at}\r\n${close}`);
      expect(await twice.end()).toMatch(/^HTTP\/1.1 4(00|21) /);
      const whole = await secured(at, 'api.test', `GET https://other.test/x HTTP/1.1\r\nHost: ${at}\r\n${close}`);
      expect(await whole.end()).toMatch(/421 /);
      const absolute = await client(`GET http://api.test:${plain.port}/x HTTP/1.1\r\nHost: other.test\r\n${close}`);
      expect(await absolute.end()).toMatch(/421 /);
      const two = await sandbox.shell(
        `curl -sS --http2 -H 'Host: other.test' -o /dev/null -w '%{http_code}' https://${at}/x`,
      );
      expect(two.stdout).toBe('421');
      expect(api.requests.length + plain.requests.length).toBe(0);
    },
    LONG_MS,
  );

  it(
    'bodies whose end can be read in two ways',
    async () => {
      const post = (headers: string, body: string): Promise<string> =>
        said(
          `POST http://api.test:${plain.port}/x HTTP/1.1\r\nHost: api.test:${plain.port}\r\n${headers}\r\n\r\n${body}`,
        );
      const smuggled = '0\r\n\r\nGET http://api.test/smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n';
      expect(await post('Content-Length: 4\r\nTransfer-Encoding: chunked', smuggled)).toMatch(/^HTTP\/1.1 400 /);
      expect(await post('Transfer-Encoding: chunked\r\nContent-Length: 4', smuggled)).toMatch(/^HTTP\/1.1 400 /);
      expect(await post('Content-Length: 4\r\nContent-Length: 5', '12345')).toMatch(/^HTTP\/1.1 400 /);
      expect(await post('Content-Length: +4', '1234')).toMatch(/^HTTP\/1.1 400 /);
      expect(await post('Transfer-Encoding: chunked, identity', smuggled)).toMatch(/^HTTP\/1.1 (400|501) /);
      expect(await post('Transfer-Encoding: xchunked', smuggled)).toMatch(/^HTTP\/1.1 (400|501) /);
      expect(await post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', smuggled)).toMatch(
        /^HTTP\/1.1 400 /,
      );
      expect(await post('Transfer-Encoding : chunked', smuggled)).toMatch(/^HTTP\/1.1 400 /);
      expect(await post('X: a\rb', '')).toMatch(/^HTTP\/1.1 400 /);
      expect(plain.requests).toEqual([]);
      expect(last()).toMatchObject({ type: 'refused', status: 400 });
    },
    LONG_MS,
  );

  it(
    'addresses that are not public, however they are named',
    async () => {
      bed.rules({ ...RULES, addresses: [] });
      const own = Object.values(os.networkInterfaces())
        .flatMap((each) => each ?? [])
        .find(({ internal, family }) => !internal && family === 'IPv4');
      const metadata = ['169.254.169.254', '10.0.0.1', '[::1]', '[::ffff:127.0.0.1]', '[fd00:ec2::254]', '127.0.0.1'];
      const addresses = [...metadata, ...(own === undefined ? [] : [own.address])];
      bed.rules({
        hosts: { ...RULES.hosts, ...Object.fromEntries(addresses.map((each) => [bare(each), {}])) },
        addresses: [],
      });
      await bed.client.refresh(sandbox.sessionId);
      for (const address of addresses) {
        const text = await said(
          `GET http://${address}:${plain.port}/ HTTP/1.1\r\nHost: ${address}:${plain.port}\r\nConnection: close\r\n\r\n`,
        );
        expect(text, address).toMatch(/^HTTP\/1.1 403 Forbidden[\s\S]*address_forbidden/);
      }
      const named = await secured(
        `api.test:${api.port}`,
        'api.test',
        `GET /x HTTP/1.1\r\nHost: api.test:${api.port}\r\nConnection: close\r\n\r\n`,
      );
      expect(await named.end()).toMatch(/403 Forbidden[\s\S]*address_forbidden/);
      const unread = await client(`CONNECT pinned.test:${api.port} HTTP/1.1\r\nHost: pinned.test\r\n\r\n`);
      await unread.until(/200 Connection/);
      unread.socket.removeAllListeners('data');
      const inner = tls.connect({ socket: unread.socket, servername: 'pinned.test', rejectUnauthorized: false });
      const [error] = (await once(inner, 'error')) as [Error];
      expect(error.message).toMatch(/disconnected|reset|hang up/);
      await logged({
        type: 'record',
        error: 'address_forbidden',
        target: expect.objectContaining({ host: 'pinned.test' }),
      });
      expect(api.requests.length + plain.requests.length).toBe(0);
    },
    LONG_MS,
  );

  it(
    'what the product itself stands on, although the environment opens the address',
    async () => {
      for (const port of [bed.port, 5432, 7233]) {
        const done = await sandbox.shell(`curl -sS -w ' %{http_code}' http://api.test:${port}/healthz`);
        expect(done.stdout).toMatch(/address_forbidden[\s\S]* 403$/);
      }
    },
    LONG_MS,
  );

  it(
    'a redirect is a request like any other',
    async () => {
      bed.rules({ ...RULES, hosts: { ...RULES.hosts, 'internal.test': {} } });
      bed.name('internal.test', '10.1.2.3');
      const followed = await sandbox.shell(`curl -sSL -w ' %{http_code}' https://api.test:${api.port}/to-private`);
      expect(followed.stdout).toMatch(/address_forbidden[\s\S]* 403$/);
      const target: unknown = expect.objectContaining({ host: 'internal.test', isTls: false });
      await logged({ type: 'record', status: 403, error: 'address_forbidden', target });
    },
    LONG_MS,
  );

  it(
    'a name that comes to mean another address while a connection lives, and one that means both',
    async () => {
      const request = `GET http://alias.test:${plain.port}/echo HTTP/1.1\r\nHost: alias.test:${plain.port}\r\n\r\n`;
      bed.rules({ ...RULES, hosts: { ...RULES.hosts, 'alias.test': {} } });
      const before = plain.requests.length;
      const kept = await client(request);
      await kept.until(/200 OK[\s\S]*"method"/);
      const names = ['127.0.0.1 api.test', '127.0.0.1 other.test', '127.0.0.1 pinned.test'];
      bed.names([...names, '169.254.169.254 alias.test']);
      // The upstream connection stays at the address that was checked; no other one is opened.
      kept.text = '';
      kept.socket.write(request);
      await kept.until(/200 OK[\s\S]*"method"/);
      expect(plain.requests.length).toBe(before + 2);
      kept.socket.destroy();
      (plain.server as http.Server).closeAllConnections();
      await expect
        .poll(() => said(request.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')), { timeout: 60_000 })
        .toMatch(/403 [\s\S]*address_forbidden/);
      bed.names([...names, '169.254.169.254 alias.test', '127.0.0.1 alias.test']);
      expect(await said(request.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))).toMatch(/200 OK/);
    },
    LONG_MS,
  );

  it(
    'what is neither TLS nor HTTP, heads that never end, heads that are too large',
    async () => {
      const ssh = await client(`CONNECT api.test:22 HTTP/1.1\r\nHost: api.test:22\r\n\r\n`);
      await ssh.until(/200 Connection/);
      ssh.socket.write('ssh-2.0-OpenSSH_9\r\n');
      await ssh.end();
      expect(last()).toMatchObject({ code: 'unknown_protocol' });
      const startedMs = performance.now();
      const slow = await client('GET http://api.test/ HTTP/1.1\r\n');
      const drip = setInterval(() => slow.socket.write('X-Drip: 1\r\n'), 200);
      const silent = await client(`CONNECT api.test:${api.port} HTTP/1.1\r\nHost: x\r\n\r\n`);
      await Promise.all([slow.end(), silent.end()]);
      clearInterval(drip);
      expect(performance.now() - startedMs).toBeGreaterThan(1_500);
      expect(await said(`GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nX: ${'a'.repeat(70_000)}\r\n\r\n`)).toMatch(
        /^HTTP\/1.1 431 /,
      );
      expect(await said('\x16\x03\x01\x00\x05hello')).toMatch(/^HTTP\/1.1 400 /);
      expect(await said('GET / HTTP/1.1\r\nHost: 127.0.0.1:3128\r\nConnection: close\r\n\r\n')).toMatch(
        /400 [\s\S]*not_a_proxy_request/,
      );
      expect(await said('GET https://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n')).toMatch(
        /400 [\s\S]*CONNECT/,
      );
    },
    LONG_MS,
  );

  it(
    'more bytes than the rules allow, in either direction',
    async () => {
      bed.rules({ ...RULES, hosts: { 'api.test': { requestBytes: 1_000, responseBytes: 1_000_000 } } });
      const url = `https://api.test:${api.port}`;
      for (const version of ['--http1.1', '--http2']) {
        const sized = await sandbox.shell(
          `head -c 5000 /dev/zero | curl -sS ${version} --data-binary @- -w ' %{http_code}' ${url}/x`,
        );
        expect(sized.stdout).toMatch(/request_too_large[\s\S]* 413$/);
        const open = await sandbox.shell(
          `head -c 5000 /dev/zero | curl -sS ${version} -T - -w ' %{http_code}' ${url}/x`,
        );
        expect(open.stdout).toMatch(/ 413$/);
        const endless = await sandbox.shell(`curl -sS ${version} ${url}/endless | wc -c`);
        expect(Number(endless.stdout)).toBeLessThanOrEqual(1_000_000);
        await logged({ type: 'record', error: 'response_too_large', path: '/endless' });
      }
    },
    LONG_MS,
  );

  it(
    'more connections than a sandbox may have, and others are not touched by it',
    async () => {
      const other = await bed.sandbox('beside');
      const held = await Promise.all(Array.from({ length: 20 }, () => client('GET http://api.test/ HTTP/1.1\r\n')));
      const more = await said('GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n');
      expect(more).toMatch(/^HTTP\/1.1 503 [\s\S]*connections_exhausted/);
      const free = await other.shell(`curl -sS https://api.test:${api.port}/x`);
      expect(free.stdout).toBe('reached');
      for (const each of held) each.socket.destroy();
    },
    LONG_MS,
  );

  it(
    'everything that does not go through the proxy',
    async () => {
      const tried = await sandbox.shell(`
      unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy ALL_PROXY
      for url in https://api.test:${api.port}/x http://127.0.0.1:${plain.port}/x http://169.254.169.254/ https://1.1.1.1/ http://[::1]:${plain.port}/; do
        curl -sS -k --max-time 5 -o /dev/null "$url" && echo "REACHED $url"
      done
      /usr/bin/python3 - <<'END'
import socket
for family, kind, address in [(socket.AF_INET, socket.SOCK_DGRAM, ('8.8.8.8', 53)), (socket.AF_INET, socket.SOCK_STREAM, ('8.8.8.8', 53)), (socket.AF_INET6, socket.SOCK_DGRAM, ('2001:4860:4860::8888', 53))]:
    try:
        s = socket.socket(family, kind); s.settimeout(2); s.connect(address); s.send(b'x'); print('REACHED', address)
    except OSError as error: pass
END
      true`);
      expect(tried.stdout).toBe('');
      expect(tried.status).toMatchObject({ exitCode: 0 });
    },
    LONG_MS,
  );

  it('and the broker never fell over it', () => {
    expect(bed.log().filter(({ type }) => ['uncaught', 'unhandled'].includes(type))).toEqual([]);
  });
});

const bare = (address: string): string => new URL(`http://${address}`).hostname.replaceAll(/[[\]]/g, '');
